#!/usr/bin/env bash
# tests/apps/build.sh — a C project built with make and gcc inside the volume, and run from it
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
{ t_have gcc && t_have make; } || { t_skip build "gcc or make not installed"; kfs_done; }
project='mkdir -p src include; cat >include/api.h <<E
int add(int a, int b);
int mul(int a, int b);
const char *name(void);
E
for f in add mul; do case $f in add) op=+;; mul) op="*";; esac; printf "#include \"api.h\"\nint $f(int a, int b)\n{\n    return a %s b;\n}\n" "$op" >src/$f.c; done
printf "#include \"api.h\"\n#include <stdio.h>\n#include <stdlib.h>\nint main(int argc, char **argv)\n{\n    FILE *f = fopen(\"config\", \"r\");\n    char line[64] = \"\";\n    if (f) {\n        if (!fgets(line, sizeof line, f)) line[0] = 0;\n        fclose(f);\n    }\n    printf(\"%%s %%d %%d %%s\", name(), add(argc, 2), mul(argc, 21), line);\n    (void)argv;\n    return argc;\n}\n" >src/main.c
printf "#include \"api.h\"\nconst char *name(void)\n{\n    return NAME;\n}\n" >src/name.c
cat >Makefile <<"E"
CFLAGS := -O1 -Iinclude -MMD -Wall -DNAME="\"project\""
OBJS := $(patsubst src/%.c,obj/%.o,$(wildcard src/*.c))
prog: $(OBJS)
	$(CC) -o $@ $^
obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<
lib: libapi.so libapi.a
libapi.so: src/add.c src/mul.c
	$(CC) -shared -fPIC -Iinclude -o $@ $^
libapi.a: obj/add.o obj/mul.o
	$(AR) rcsD $@ $^
clean:
	rm -rf obj prog lib*
-include $(OBJS:.o=.d)
E
echo "configured" >config
'
both build-and-run "$project"'make 2>&1; ./prog; echo; echo $?; ./prog a b; "$D/prog" x; (cd src && ../prog); make 2>&1; find obj prog -exec touch -d "1 hour ago" {} +; touch -d "30 minutes ago" include/api.h; make 2>&1 | wc -l; make clean 2>&1; make -j2 prog 2>&1 | sort; ./prog; ls -R; cp prog "$H/prog"; "$H/prog"; mv prog renamed; ./renamed; strip renamed; ./renamed; chmod -x renamed; ./renamed; echo $?; file -b renamed 2>/dev/null | cut -c1-3; rm -rf obj renamed "$H/prog"; gcc -v 2>/dev/null'
both build-libraries "$project"'make lib 2>&1; ar t libapi.a; nm libapi.a | grep -c " T "; gcc -DNAME=\"a\" -Iinclude -o sta src/main.c src/name.c libapi.a; ./sta; objdump -h libapi.so | wc -l; ranlib libapi.a; gcc -E -Iinclude src/add.c | tail -3; gcc -S -Iinclude src/add.c -o add.s && test -s add.s && echo assembled; gcc -c nope.c 2>&1 | head -1; echo "int x = ;" >bad.c; gcc -c bad.c 2>&1 | head -1; ls; gcc -pipe -save-temps -Iinclude -c src/mul.c; ls mul*; rm -f sta lib* obj/* mul* add.s'
both build-shared-library "$project"'make lib 2>&1; gcc -DNAME=\"so\" -Iinclude -o dyn src/main.c src/name.c -L. -lapi -Wl,-rpath,"\$ORIGIN"; ./dyn; echo; LD_LIBRARY_PATH=$D ./dyn; (cd src; ../dyn); rm -rf dyn lib* obj'
both build-scripts "$project"'make -s 2>&1; printf "#!/bin/sh\necho script; exec \"\$(dirname \"\$0\")\"/prog from script\n" >go; chmod +x go; ./go; echo; printf "#!$D/prog\n" >interp; chmod +x interp; ./interp; echo; printf "#!/usr/bin/env bash\necho \"env \$0\" | sed \"s#$D#DIR#\"\n" >e; chmod +x e; ./e; printf "#!/usr/bin/python3\nprint(\"python\")\n" >p.py; chmod +x p.py; ./p.py; xargs -n1 ./go </dev/null; echo; find . -name prog -exec {} \; ; echo; env ./prog; echo; sh -c "./prog; ./go"; (exec ./prog); echo; nice ./prog; echo; timeout 20 ./prog; echo; ./prog & wait; echo; rm -rf obj prog e interp'
both build-out-of-tree "$project"'mkdir "$H/b"; gcc -Iinclude -DNAME=\"x\" -o "$H/b/p" src/*.c; "$H/b/p"; echo; cp -r src include "$H"; cd "$H"; gcc -Iinclude -DNAME=\"y\" -o "$D/p" src/*.c; "$D/p"; echo; cd /; "$D/p"; make -C "$D" -s 2>&1; "$D/prog"; make -s -f "$D/Makefile" -C "$D" clean; ls "$D"; TMPDIR=$D gcc -Iinclude -I"$D/include" -c -o "$D/a.o" "$D/src/add.c"; ls "$D"; rm -f "$D/p" "$D/a.o" "$H/b/p"'
kfs_recheck
kfs_done
