#!/usr/bin/env bash
# tests/apps/cmake.sh — a project configured, built, tested, installed and packed by cmake in the volume, with make and with ninja
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
{ t_have cmake && t_have gcc && t_have make; } || { t_skip cmake "cmake, gcc or make not installed"; kfs_done; }
export KRUN_LIMIT=200
project='mkdir -p src/lib src/app; cat >src/CMakeLists.txt <<"E"
cmake_minimum_required(VERSION 3.13)
project(demo C)
include(CheckIncludeFile)
check_include_file(unistd.h HAVE_UNISTD_H)
configure_file(config.h.in config.h)
add_library(answer SHARED lib/answer.c)
target_include_directories(answer PUBLIC lib)
add_executable(demo app/main.c)
target_include_directories(demo PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
target_link_libraries(demo answer)
file(GLOB texts CONFIGURE_DEPENDS *.txt)
list(LENGTH texts count)
message(STATUS "texts: ${count}")
add_custom_command(OUTPUT gen.c COMMAND ${CMAKE_COMMAND} -E echo "int generated(void); int generated(void) { return 7; }" > gen.c)
target_sources(demo PRIVATE gen.c)
enable_testing()
add_test(NAME runs COMMAND demo)
add_test(NAME copies COMMAND ${CMAKE_COMMAND} -E compare_files ${CMAKE_SOURCE_DIR}/a.txt ${CMAKE_SOURCE_DIR}/a.txt)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib")
install(TARGETS demo answer RUNTIME DESTINATION bin LIBRARY DESTINATION lib)
install(FILES a.txt DESTINATION share)
include(CPack)
E
echo "#cmakedefine HAVE_UNISTD_H" >src/config.h.in; echo text >src/a.txt; echo "int answer(void);" >src/lib/answer.h; printf "#include \"answer.h\"\nint answer(void)\n{\n    return 42;\n}\n" >src/lib/answer.c
printf "#include \"answer.h\"\n#include \"config.h\"\n#include <stdio.h>\nint generated(void);\nint main(void)\n{\n#ifdef HAVE_UNISTD_H\n    printf(\"unistd \");\n#endif\n    printf(\"%%d %%d\\\\n\", answer(), generated());\n    return 0;\n}\n" >src/app/main.c
'
steps='cmake -S src -B b $G -DCMAKE_BUILD_TYPE=Release 2>&1 | grep -v "^-- The C\|^-- Check\|^-- Detect\|^-- Looking\|[Cc]onfiguring done\|[Gg]enerating done"; cmake --build b 2>&1 | sed "s/^\[[^]]*\] *//" | sort | uniq -c; b/demo; (cd b && ctest 2>&1 | grep "tests passed"); cmake --build b 2>&1 | grep -c "Building C\|Linking C"; touch -d "now + 2 seconds" src/lib/answer.c; sed -i s/42/43/ src/lib/answer.c; echo more >src/b.txt; cmake --build b 2>&1 | grep -c "Building C"; b/demo; cmake --install b --prefix inst 2>&1 | sort; inst/bin/demo; cmake --install b --prefix "$H/inst" >/dev/null; "$H/inst/bin/demo"; (cd b && cpack -G TGZ >/dev/null 2>&1; tar tzf demo-*.tar.gz | sort); cmake -E tar czf t.tgz src && cmake -E tar tzf t.tgz | sort; cmake -E copy_directory src copy && diff -r src copy && echo same; cmake -E rm -rf copy t.tgz; cmake -E make_directory x/y; cmake -E create_symlink y x/l; cmake -E md5sum src/a.txt; cmake --build b --target clean; ls b/demo 2>&1 | sed "s/.*: //"; rm -rf b "$H/inst" inst'
export G=
both cmake-make "$project$steps"
if t_have ninja; then
    G='-G Ninja' both cmake-ninja "$project$steps"
else
    t_skip cmake-ninja "ninja not installed (Debian: ninja-build)"
fi
kfs_done
