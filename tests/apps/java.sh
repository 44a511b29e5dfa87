#!/usr/bin/env bash
# tests/apps/java.sh — a JVM in a volume: classes and jars, java.nio with mapped files and locks, the zip file system, logs, agents
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
{ t_have javac && t_have jar; } || { t_skip java "no JDK installed (Debian: default-jdk-headless)"; kfs_done; }
export JAVA_TOOL_OPTIONS='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto' KRUN_LIMIT=200

cat >"$T/T.java" <<'E'
import java.io.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.nio.file.attribute.*;
import java.util.*;
import java.util.stream.*;

public class T {
    interface Act { void run() throws Exception; }
    static void t(String what, Act a) {
        try { a.run(); System.out.println(what + " ok"); }
        catch (Exception e) { System.out.println(what + " " + e.getClass().getSimpleName()); }
    }
    static void say(Object... o) { System.out.println(Arrays.stream(o).map(String::valueOf).collect(Collectors.joining(" "))); }
    public static void main(String[] args) throws Exception {
        Path d = Path.of("data");
        Files.createDirectories(d.resolve("a/b"));
        Path x = d.resolve("x");
        Files.writeString(x, "hello\n");
        Files.writeString(x, "world\n", StandardOpenOption.APPEND);
        say(Files.readAllLines(x), Files.size(x), Files.getPosixFilePermissions(x).size(), Files.isRegularFile(x), Files.isDirectory(d));
        t("new", () -> Files.write(x, new byte[1], StandardOpenOption.CREATE_NEW));
        t("none", () -> Files.readString(d.resolve("none")));
        t("dir", () -> Files.createDirectory(d));
        t("full", () -> Files.delete(d));
        t("exists", () -> Files.move(x, d.resolve("a"), StandardCopyOption.ATOMIC_MOVE));
        Files.createSymbolicLink(d.resolve("l"), Path.of("x"));
        Files.createLink(d.resolve("h"), x);
        say(Files.readSymbolicLink(d.resolve("l")), Files.getAttribute(x, "unix:nlink"), Files.isSameFile(x, d.resolve("h")), d.resolve("l").toRealPath().endsWith("data/x"));
        Files.copy(x, d.resolve("a/c"), StandardCopyOption.COPY_ATTRIBUTES);
        Files.move(d.resolve("a/c"), d.resolve("a/b/m"), StandardCopyOption.ATOMIC_MOVE);
        Files.setLastModifiedTime(x, FileTime.fromMillis(12345678));
        Files.setPosixFilePermissions(x, PosixFilePermissions.fromString("rw-r-----"));
        say(Files.getLastModifiedTime(x).toMillis(), PosixFilePermissions.toString(Files.getPosixFilePermissions(x)), Files.getOwner(x).getName().isEmpty());
        Files.setAttribute(x, "user:note", ByteBuffer.wrap("attr".getBytes()));
        say(new String((byte[]) Files.getAttribute(x, "user:note")));
        try (Stream<Path> s = Files.walk(d)) { say(s.map(Path::toString).sorted().toList()); }
        try (DirectoryStream<Path> s = Files.newDirectoryStream(d, "{x,h,l}")) { List<String> n = new ArrayList<>(); s.forEach(p -> n.add(p.getFileName().toString())); Collections.sort(n); say(n); }

        Path big = d.resolve("big");
        try (FileChannel c = FileChannel.open(big, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer m = c.map(FileChannel.MapMode.READ_WRITE, 0, 8 << 20);
            for (int i = 0; i < 1 << 20; i++) m.putLong(i * 8, i);
            m.force();
            ByteBuffer b = ByteBuffer.allocate(8);
            c.read(b, 8 * 777_777);
            say(b.flip().getLong(), c.size());
            c.write(ByteBuffer.wrap(new byte[] {0, 0, 0, 0, 0, 0, 0, 42}), 8 * 5);
            say(m.getLong(40));
            try (FileLock l = c.tryLock(0, 100, false)) {
                say(l.isValid());
                Process p = new ProcessBuilder(ProcessHandle.current().info().command().get(), "-cp", System.getProperty("java.class.path"), "T$Lock", big.toString()).redirectErrorStream(true).start();
                say(new String(p.getInputStream().readAllBytes()).replaceAll("(?m)^Picked up.*\n", "").trim(), p.waitFor());
            }
            try (FileChannel out = FileChannel.open(d.resolve("copy"), StandardOpenOption.CREATE, StandardOpenOption.WRITE)) { say(c.transferTo(0, c.size(), out), out.size()); }
            c.truncate(100);
            c.force(true);
        }
        say(Files.size(big), Files.mismatch(big, d.resolve("copy")));
        try (FileChannel c = FileChannel.open(d.resolve("copy"), StandardOpenOption.READ, StandardOpenOption.WRITE)) { say(c.map(FileChannel.MapMode.READ_ONLY, 8 * 1000, 8).getLong(), c.map(FileChannel.MapMode.PRIVATE, 0, 16).putLong(0, 9).getLong(0)); }
        try (RandomAccessFile r = new RandomAccessFile(d.resolve("raf").toFile(), "rw")) { r.setLength(1000); r.seek(500); r.writeUTF("text"); r.seek(500); say(r.readUTF(), r.length()); r.getFD().sync(); }
        try (AsynchronousFileChannel c = AsynchronousFileChannel.open(d.resolve("async"), StandardOpenOption.CREATE, StandardOpenOption.WRITE)) { say(c.write(ByteBuffer.wrap("async".getBytes()), 0).get()); }
        try (BufferedWriter w = Files.newBufferedWriter(d.resolve("w"))) { for (int i = 0; i < 10000; i++) w.write("line " + i + "\n"); }
        try (Stream<String> s = Files.lines(d.resolve("w"))) { say(s.filter(q -> q.endsWith("7")).count()); }
        File f = new File("data/old");
        say(f.createNewFile(), f.createNewFile(), f.length(), f.renameTo(new File("data/older")), new File("data/older").setReadOnly(), new File("data").list().length, f.exists(), new File("data/../data/x").getCanonicalPath().endsWith("/data/x"), f.mkdir(), f.delete(), new File("data").getFreeSpace() > 0);
        File tmp = File.createTempFile("tmp", null, d.toFile());
        tmp.deleteOnExit();
        try (FileSystem z = FileSystems.newFileSystem(d.resolve("z.zip"), Map.of("create", "true"))) { for (int i = 0; i < 100; i++) Files.writeString(z.getPath("/f" + i), "content " + i); }
        try (FileSystem z = FileSystems.newFileSystem(d.resolve("z.zip"))) { say(Files.readString(z.getPath("/f42")), Files.list(z.getPath("/")).count()); }
        Files.delete(d.resolve("z.zip"));
        try (ObjectOutputStream o = new ObjectOutputStream(new FileOutputStream("data/obj"))) { o.writeObject(List.of(1, 2, 3)); }
        try (ObjectInputStream o = new ObjectInputStream(new FileInputStream("data/obj"))) { say(o.readObject()); }
        Thread[] th = new Thread[4];
        for (int i = 0; i < 4; i++) { int k = i; th[i] = new Thread(() -> { try { for (int j = 0; j < 50; j++) Files.writeString(d.resolve("a/t" + k + "-" + j), "x".repeat(j)); } catch (IOException e) { say(e); } }); th[i].start(); }
        for (Thread q : th) q.join();
        try (Stream<Path> s = Files.list(d.resolve("a"))) { say(s.count()); }
        say(T.class.getResource("/res.txt") != null ? new String(T.class.getResourceAsStream("/res.txt").readAllBytes()).trim() : "no resource");
        Process p = new ProcessBuilder("sh", "-c", "pwd | sed 's,.*/,,'; cat x").directory(d.toFile()).redirectErrorStream(true).start();
        say(new String(p.getInputStream().readAllBytes()).trim());
        new ProcessBuilder("echo", "redirected").redirectOutput(new File("data/redirected")).start().waitFor();
        say(Files.readString(d.resolve("redirected")).trim());
        try (WatchService w = FileSystems.getDefault().newWatchService()) { say("watch", w != null); }
    }
    public static class Lock {
        public static void main(String[] a) throws Exception {
            try (FileChannel c = FileChannel.open(Path.of(a[0]), StandardOpenOption.WRITE)) {
                System.out.println((c.tryLock(50, 10, false) == null) + " " + (c.tryLock(200, 10, false) != null));
            }
        }
    }
    public static class Agent {
        public static void premain(String a, java.lang.instrument.Instrumentation i) { System.out.println("agent " + a + " " + i.isRetransformClassesSupported()); }
    }
}
E
export SRC=$T/T.java
both java-classes 'cp "$SRC" T.java; javac -d out T.java 2>&1 | grep -v "^Picked"; ls out; echo resource >out/res.txt; java -cp out T 2>&1 | grep -v "^Picked"; rm -f out/T*.class'
both java-jar 'cp "$SRC" T.java; javac -d out T.java 2>&1 | grep -v "^Picked"; echo in-jar >out/res.txt; printf "Main-Class: T\nPremain-Class: T\$Agent\n" >m; jar cfm t.jar m -C out . 2>/dev/null; jar tf t.jar 2>/dev/null | sort; mkdir run; cd run; java -jar ../t.jar 2>&1 | grep -v "^Picked" | head -5; cd ..; rm -rf run; java -javaagent:t.jar=opt -cp t.jar "T\$Lock" m 2>&1 | grep -v "^Picked"; java -Xlog:gc:file=gc.log -cp "t.jar:*" "T\$Lock" m 2>&1 | grep -v "^Picked"; test -s gc.log && echo logged; java -XX:SharedArchiveFile=cds.jsa -XX:ArchiveClassesAtExit=cds.jsa -cp t.jar "T\$Lock" m >/dev/null 2>&1; rm -f t.jar gc.log cds.jsa out/T*.class; printf "public class S { public static void main(String[] a) { System.out.println(\"source \" + a[0]); } }\n" >S.java; java S.java z 2>&1 | grep -v "^Picked"'
kfs_recheck
kfs_done
