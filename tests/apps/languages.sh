#!/usr/bin/env bash
# tests/apps/languages.sh — perl, ruby, vim and emacs in a volume: their file functions, modules, locks, and how they save
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume

if t_have perl; then
    both perl-files 'cat >p.pl <<"E"
use strict; use warnings; use Fcntl qw(:flock :seek :mode); use File::Find; use File::Path qw(make_path remove_tree); use File::Copy; use File::Temp qw(tempfile tempdir); use File::Spec; use Cwd qw(getcwd abs_path); use IO::File; use File::stat ();
make_path("a/b/c"); open(my $f, ">", "a/x") or die $!; print $f "line $_\n" for 1..5; close $f or die $!;
open($f, "+<", "a/x") or die $!; flock($f, LOCK_EX) or die $!; seek($f, 7, SEEK_SET); print $f "LINE"; truncate($f, 30) or die $!; close $f;
open($f, "<", "a/x"); my @l = <$f>; print @l, scalar(@l), " $.\n"; close $f;
open($f, ">>:encoding(UTF-8)", "a/u"); print $f "\x{263a}\n"; close $f; print -s "a/u", "\n";
print join(",", map { -e "a/$_" ? 1 : 0 } qw(x u none)), " ", (-d "a/b" ? "d" : "-"), " ", (-f _ ? "f" : "-"), "\n";
rename "a/x", "a/y" or die; link "a/y", "a/z" or die; symlink "y", "a/l" or die; print readlink("a/l"), " ", (stat "a/z")[3], " ", S_IMODE((stat "a/y")[2]), "\n";
copy("a/y", "a/b/copy") or die; move("a/b/copy", "a/b/c/moved") or die;
find({wanted => sub { print "$File::Find::name\n" }, no_chdir => 1, preprocess => sub { sort @_ }}, "a");
opendir(my $d, "a"); print join(" ", sort grep { !/^\./ } readdir $d), "\n"; closedir $d;
print join(" ", sort glob("a/*")), "\n"; chmod 0600, "a/y"; utime 1000, 2000, "a/y"; print File::stat::stat("a/y")->mtime, "\n";
my ($t, $tn) = tempfile(DIR => "a"); print $t "tmp"; close $t; print -s $tn, "\n"; unlink $tn; my $td = tempdir(DIR => "a", CLEANUP => 1); print -d $td ? "dir\n" : "none\n"; File::Temp::cleanup(); print -d $td ? "dir\n" : "none\n";
print abs_path("a/l") eq getcwd() . "/a/y" ? "real\n" : "other\n"; chdir "a/b" or die; print -e "../y" ? "up\n" : "no\n"; chdir "../.." or die;
open($f, "<", "none") or print "$!\n"; opendir($d, "none") or print "$!\n"; mkdir "a" or print "$!\n"; rmdir "a" or print "$!\n";
open(my $p, "-|", "cat", "a/y") or die; print <$p>; close $p; print `ls a/b`; system("touch", "a/by-child") == 0 or die; print -e "a/by-child" ? "there\n" : "gone\n";
my $pid = fork; if (!$pid) { open($f, ">>", "a/y"); print $f "child\n"; close $f; exit 0 } waitpid $pid, 0; open($f, "<", "a/y"); print <$f>; close $f;
{ local ($^I, @ARGV) = (".bak", "a/y"); while (<>) { s/line/edited/; print } } open($f, "<", "a/y"); print <$f>; print -e "a/y.bak" ? "kept\n" : "";
remove_tree("a/b"); print join(" ", sort glob("a/*")), "\n";
E
perl p.pl 2>&1; mkdir lib; printf "package My::Mod; sub f { 42 } 1;\n" >lib/Mod.pm; mkdir lib/My; mv lib/Mod.pm lib/My/; perl -Ilib -MMy::Mod -e "print My::Mod::f(), qq{ \$INC{q{My/Mod.pm}}\n}"; printf "#!/usr/bin/perl -w\nprint qq{\$0 @ARGV\\n}; print <DATA>;\n__DATA__\nbehind\n" >s; chmod +x s; ./s a b; perl -MSDBM_File -MFcntl -e "tie my %h, q{SDBM_File}, q{db}, O_RDWR|O_CREAT, 0644 or die; \$h{\$_} = \$_ * 2 for 1..100; untie %h; tie %h, q{SDBM_File}, q{db}, O_RDONLY, 0 or die; print scalar(keys %h), qq{ \$h{50}\n}"; perl -MStorable=store,retrieve -e "store {a=>[1..9]}, q{st}; print scalar @{retrieve(q{st})->{a}}, qq{\n}"; rm -f db.* st'
else
    t_skip perl "not installed (Debian: perl)"
fi

if t_have ruby; then
    both ruby-files 'cat >p.rb <<"E"
require "fileutils"; require "tempfile"; require "tmpdir"; require "pathname"; require "find"; require "json"
def t; yield; rescue SystemCallError => e; puts e.class; end
FileUtils.mkdir_p "a/b/c"; File.write "a/x", "one\ntwo\n"; File.open("a/x", "a") { |f| f.flock(File::LOCK_EX); f.puts "three"; f.fsync }
puts File.readlines("a/x").size, IO.read("a/x", 3, 4), File.size("a/x"), File.stat("a/x").mode.to_s(8)
File.open("a/x", "r+b") { |f| f.seek(4); f.write("TWO"); f.truncate(8); f.rewind; p f.read; p f.eof?; f.pwrite("!", 0); p f.pread(3, 0) }
FileUtils.cp "a/x", "a/y"; FileUtils.mv "a/y", "a/b/z"; FileUtils.ln_s "x", "a/l"; FileUtils.ln "a/x", "a/h"; puts File.readlink("a/l"), File.lstat("a/l").symlink?, File.stat("a/h").nlink
puts Dir.children("a").sort.inspect, Dir.glob("a/**/*").sort.inspect, Dir["a/{x,l}"].sort.inspect, Find.find("a").to_a.sort.inspect
puts Pathname("a/../a/l").realpath.relative_path_from(Pathname(Dir.pwd).realpath); FileUtils.cp_r "a", "copy"; puts Dir.glob("copy/**/*").size
File.rename "a/b/z", "a/b/r"; File.utime(1000, 2000, "a/x"); puts File.mtime("a/x").to_i; File.chmod(0600, "a/x"); puts File.world_readable?("a/x").inspect
t { File.read "none" }; t { Dir.mkdir "a" }; t { Dir.rmdir "a" }; t { File.open("a", "w") }; t { File.rename "none", "n" }
Dir.mktmpdir("t", ".") { |d| File.write "#{d}/f", "x" * 100_000; puts File.size("#{d}/f") }; Tempfile.create("q", ".") { |f| f << "temp"; f.flush; puts File.read(f.path) }
Dir.chdir("a/b") { puts Dir.entries(".").sort.inspect; puts File.exist?("../x") }; puts `cat a/h`, system("test -e a/l"), $?.exitstatus
pid = fork { File.open("a/x", "a") { |f| f.print "child" } }; Process.wait pid; puts File.read("a/x"); puts IO.popen(["ls", "a"]).read
IO.copy_stream("a/x", "a/stream"); puts FileUtils.compare_file("a/x", "a/stream"); File.open("a/big", "wb") { |f| f.seek(5_000_000); f.write "end" }; puts File.size("a/big"), File.open("a/big", "rb") { |f| f.read.count("\0") }
File.write("j.json", JSON.generate({a: [1, 2]})); puts JSON.parse(File.read("j.json"))["a"].sum; threads = 4.times.map { |i| Thread.new { 50.times { |k| File.write("a/t#{i}-#{k}", "x" * k) } } }; threads.each(&:join); puts Dir["a/t*"].sum { |f| File.size f }
FileUtils.rm_rf "copy"; FileUtils.rm_r Dir["a/t*"]
E
ruby p.rb 2>&1; mkdir lib; echo "module M; def self.f; [42, File.basename(__FILE__), __dir__ == File.dirname(File.realpath(__FILE__))]; end; end" >lib/m.rb; ruby -Ilib -e "require %q(m); p M.f"; ruby -e "require_relative %q(lib/m); p M.f"; printf "#!/usr/bin/env ruby\nputs \$0 == __FILE__, ARGV.inspect, DATA.read\n__END__\ndata\n" >s; chmod +x s; ./s a'
else
    t_skip ruby "not installed (Debian: ruby)"
fi

if t_have vim && vim --version 2>/dev/null | grep -q '^Huge\|^Small\|^Normal\|^Big\|Vi IMproved'; then
    vim='vim -es -u NONE -i NONE'
    both vim-saves "printf 'one\ntwo\nthree\n' >f; chmod 640 f; ln -s f l; ln f h
$vim -c '%s/two/TWO/' -c 'wq' f; cat f h; ls -l | awk '{print \$1, \$2, \$9, \$10, \$11}'; $vim -c 'set backup backupcopy=no' -c 'g/three/d' -c 'x' f; cat f; cat f~ h; ls
$vim -c 'set backupcopy=yes' -c 'normal ggOtop' -c 'wq' l; cat f; $vim -c 'set swapfile' -c 'normal Gobottom' -c 'w new' -c 'w! f' -c 'q!' f; cat new f; $vim -c 'set writebackup' -c 'w ++enc=utf-16 u' -c 'q!' f; wc -c <u
mkdir d; $vim -c 'saveas d/x' -c 'wq' f; cat d/x; chmod 400 new; $vim -c 'normal dd' -c 'wq!' new; ls -l new | cut -c1-10; $vim -c 'set undofile undodir=.' -c 'normal ddp' -c 'wq' f; ls -A | grep -c un~; echo 'let g:x = 1' >s.vim; $vim -c 'source s.vim' -c 'call writefile([string(g:x), getcwd() == expand(\"%:p:h\")], \"out\")' -c 'q!' f; cat out; $vim -c 'r !ls d' -c 'w listing' -c 'q!'; cat listing; rm -f .*un~ f~"
else
    t_skip vim "not installed (Debian: vim)"
fi

if t_have emacs; then
    both emacs-saves 'export HOME=$H; printf "one\ntwo\n" >f; chmod 640 f; ln -s f l
emacs -Q --batch --eval "(progn (find-file \"f\") (goto-char (point-max)) (insert \"three\n\") (save-buffer) (message \"%s\" (buffer-modified-p)))" 2>&1 | grep -v "^Loading\|^Saving\|^Wrote"; cat f; cat f~; ls -l | awk "{print \$1, \$2, \$9}"
emacs -Q --batch --eval "(progn (setq backup-by-copying t version-control t) (find-file \"l\") (insert \"top\n\") (save-buffer) (insert \"more\n\") (save-buffer))" 2>/dev/null; cat f; ls
emacs -Q --batch --eval "(progn (setq create-lockfiles t) (find-file \"f\") (insert \"x\") (princ (format \"%s\n\" (if (file-symlink-p \".#f\") \"locked\" \"no lock\"))) (set-buffer-modified-p nil) (unlock-buffer))" 2>/dev/null; ls -A
emacs -Q --batch --eval "(progn (find-file \"g\") (insert \"auto\") (do-auto-save t) (princ (file-exists-p \"#g#\")) (save-buffer) (princ (file-exists-p \"#g#\")))" 2>/dev/null; echo; ls
emacs -Q --batch --eval "(progn (make-directory \"d/e\" t) (write-region \"text\" nil \"d/e/t\") (write-region \" more\" nil \"d/e/t\" t) (rename-file \"d/e/t\" \"d/t\") (copy-file \"d/t\" \"d/c\") (princ (directory-files-recursively \"d\" \".\")) (princ (file-attribute-size (file-attributes \"d/c\"))) (princ (file-truename \"l\")) (princ (file-newer-than-file-p \"none\" \"f\")) (delete-directory \"d\" t) (princ (file-exists-p \"d\")))" 2>/dev/null; echo
echo "(defun my-f () 42) (provide (quote my))" >my.el; emacs -Q --batch -f batch-byte-compile my.el >/dev/null 2>&1; ls my.elc; emacs -Q --batch -L . --eval "(progn (require (quote my)) (princ (my-f)))"; echo; emacs -Q --batch --eval "(princ (shell-command-to-string \"cat f\"))"; rm -f my.elc'
else
    t_skip emacs "not installed (Debian: emacs-nox)"
fi
kfs_recheck
kfs_done
