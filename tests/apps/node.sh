#!/usr/bin/env bash
# tests/apps/node.sh — node in a volume: fs in its three styles, watchers, streams, modules, worker threads, children; npm with packages from its registry
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
t_have node || { t_skip node "not installed (Debian: nodejs)"; kfs_done; }

both node-fs 'cat >t.mjs <<"E"
import fs from "fs"; import fsp from "fs/promises"; import path from "path"; import { pipeline } from "stream/promises"; import zlib from "zlib";
const say = (...a) => console.log(...a);
const t = (n, f) => { try { say(n, f() ?? "ok"); } catch (e) { say(n, e.code, e.syscall); } };
fs.mkdirSync("a/b/c", { recursive: true }); fs.writeFileSync("a/x", "hello"); fs.appendFileSync("a/x", " world");
say(fs.readFileSync("a/x", "utf8"), fs.statSync("a/x").size, (fs.statSync("a/x").mode & 0o777).toString(8), fs.existsSync("none"));
t("open wx", () => fs.openSync("a/x", "wx")); t("none", () => fs.readFileSync("none")); t("mkdir", () => fs.mkdirSync("a")); t("rmdir", () => fs.rmdirSync("a")); t("dir", () => fs.readFileSync("a"));
const fd = fs.openSync("a/x", "r+"); fs.writeSync(fd, "HELLO", 0); fs.ftruncateSync(fd, 8); fs.fsyncSync(fd); fs.fchmodSync(fd, 0o600); fs.futimesSync(fd, 1000, 2000); say(fs.fstatSync(fd).size, fs.fstatSync(fd).mtimeMs);
const buf = Buffer.alloc(5); say(fs.readSync(fd, buf, 0, 5, 0), buf.toString(), fs.readvSync(fd, [Buffer.alloc(2), Buffer.alloc(2)], 0)); fs.closeSync(fd);
fs.renameSync("a/x", "a/y"); fs.linkSync("a/y", "a/h"); fs.symlinkSync("y", "a/l"); say(fs.readlinkSync("a/l"), fs.lstatSync("a/l").isSymbolicLink(), fs.statSync("a/l").nlink, path.relative(process.cwd(), fs.realpathSync("a/l")), path.relative(process.cwd(), fs.realpathSync.native("a/l")));
fs.copyFileSync("a/y", "a/b/z"); t("excl", () => fs.copyFileSync("a/y", "a/b/z", fs.constants.COPYFILE_EXCL)); t("clone", () => fs.copyFileSync("a/y", "a/b/c/z", fs.constants.COPYFILE_FICLONE)); fs.cpSync("a", "copy", { recursive: true });
say(fs.readdirSync("a").sort(), fs.readdirSync("a", { withFileTypes: true }).map(d => d.name + (d.isDirectory() ? "/" : d.isSymbolicLink() ? "@" : "")).sort(), fs.readdirSync("copy", { recursive: true }).sort());
t("access", () => fs.accessSync("a/y", fs.constants.R_OK)); say(path.basename(path.dirname(fs.mkdtempSync("a/tmp-"))), fs.readdirSync("a").filter(n => n.startsWith("tmp-")).length);
for await (const d of await fsp.opendir("a/b")) say(d.name, d.isFile()); await fsp.rm("copy", { recursive: true }); say(fs.existsSync("copy")); fs.rmSync("none", { force: true });
const h = await fsp.open("a/p", "w+"); await h.writeFile("promise "); await h.appendFile("more"); await h.sync(); await h.datasync(); say((await h.stat()).size, (await h.read({ position: 8 })).bytesRead); for await (const l of (await fsp.open("a/p")).readLines()) say(l); await h.close();
await Promise.all([...Array(200).keys()].map(i => fsp.writeFile(`a/b/f${i}`, "x".repeat(i)))); say((await Promise.all((await fsp.readdir("a/b")).filter(n => n[0] == "f").map(n => fsp.stat("a/b/" + n)))).reduce((s, x) => s + x.size, 0));
await Promise.all([...Array(200).keys()].map(i => fsp.unlink(`a/b/f${i}`)));
await pipeline(fs.createReadStream(process.execPath, { end: 999999 }), zlib.createGzip(), fs.createWriteStream("a/s.gz")); await pipeline(fs.createReadStream("a/s.gz"), zlib.createGunzip(), fs.createWriteStream("a/s")); say(fs.statSync("a/s").size, fs.readFileSync("a/s").equals(fs.readFileSync(process.execPath).subarray(0, 1000000)));
await fsp.truncate("a/s", 10); await fsp.utimes("a/s", 5, 6); await fsp.chmod("a/s", 0o444); const st = await fsp.stat("a/s", { bigint: true }); say(st.size, st.mtimeNs, st.mode & 0o777n); say((await fsp.statfs(".")).bsize > 0);
await new Promise(r => fs.readFile("a/p", "utf8", (e, d) => { say(e, d); r(); })); await new Promise(r => fs.readFile("none", (e, d) => { say(e.code, d); r(); }));
await new Promise(r => { const w = fs.createWriteStream("a/w", { flags: "a" }); for (let i = 0; i < 1000; i++) w.write("line " + i + "\n"); w.end(r); }); say(fs.statSync("a/w").size);
const lock = await fsp.open("a/lock", "wx"); try { await fsp.open("a/lock", "wx"); } catch (e) { say(e.code); } await lock.close();
process.chdir("a/b"); say(path.basename(process.cwd()), fs.existsSync("../y")); fs.rmSync("../tmp", { recursive: true, force: true }); for (const n of fs.readdirSync("..")) if (n.startsWith("tmp-")) fs.rmdirSync("../" + n); fs.rmSync("../s.gz");
E
node t.mjs 2>&1'
both node-modules 'mkdir -p node_modules/m/lib node_modules/@s/p; echo "{\"name\":\"m\",\"version\":\"1.2.3\",\"main\":\"lib/i.js\",\"exports\":{\".\":\"./lib/i.js\",\"./x\":\"./lib/x.mjs\"}}" >node_modules/m/package.json; echo "module.exports = require(\"path\").basename(__filename)" >node_modules/m/lib/i.js; echo "export default import.meta.url.split(\"/\").pop()" >node_modules/m/lib/x.mjs; echo "{\"name\":\"@s/p\",\"main\":\"i.js\"}" >node_modules/@s/p/package.json; echo "exports.v = require(\"../../m\")" >node_modules/@s/p/i.js
cat >a.js <<"E"
console.log(require("m"), require("@s/p").v, require.resolve("m").endsWith("node_modules/m/lib/i.js"), require("./d.json").k); import("m/x").then(x => console.log(x.default));
const { Worker } = require("worker_threads"); const w = new Worker("./w.js"); w.on("message", m => console.log("worker", m)); w.on("exit", () => {
    const c = require("child_process"); console.log(c.execFileSync(process.execPath, ["c.js", "arg"], { encoding: "utf8" }).trim(), c.execSync("cat d.json; ls w.js", { encoding: "utf8" }), c.spawnSync("./s.js", ["z"], { encoding: "utf8" }).stdout);
    const f = c.fork("./f.js"); f.on("message", m => { console.log("fork", m); f.disconnect(); }); });
E
echo "{\"k\": 7}" >d.json; echo "require(\"worker_threads\").parentPort.postMessage(require(\"fs\").readFileSync(\"d.json\", \"utf8\").trim())" >w.js; echo "console.log(process.argv[2], require(\"m\"), process.cwd() == __dirname)" >c.js; echo "process.send(require(\"m\"))" >f.js; printf "#!/usr/bin/env node\nconsole.log(\"script\", process.argv[2], require(\"path\").basename(__filename))\n" >s.js; chmod +x s.js; node a.js 2>&1; cd /; node "$D/s.js" y; node -e "console.log(require(process.env.D + \"/node_modules/m\"))"; ln -s "$D/node_modules/m" "$D/link"; node -p "require(process.env.D + \"/link\")"; node --preserve-symlinks -p "require(process.env.D + \"/link\")"'

if ! t_have npm || ! npm view is-number version >/dev/null 2>&1; then
    t_skip npm "npm is not installed, or cannot reach its registry"
    kfs_done
fi
export NPM_CONFIG_AUDIT=false NPM_CONFIG_FUND=false NPM_CONFIG_UPDATE_NOTIFIER=false
# A tree with commands, one with a library of Rust's for node, and the cache on the volume as well.
both -x .package-lock.json -x package-lock.json -x .npm npm-install 'export NPM_CONFIG_CACHE=$PWD/.npm HOME=$H
npm init -y >/dev/null 2>&1; npm install --silent --no-progress semver@7.6.3 @node-rs/crc32@1.10.6 2>&1; ls -A node_modules node_modules/.bin; node_modules/.bin/semver -i minor 1.2.3; node -p "require(\"@node-rs/crc32\").crc32(\"hello\")"; npm ls 2>&1 | tail -n +2; npm exec --offline -- semver -r ">=2" 1.0.0 2.5.0; rm -rf node_modules; npm ci --silent --no-progress --offline 2>&1; ls -A node_modules; npm uninstall --silent semver 2>&1; ls -A node_modules; npm pkg set scripts.hi="echo hi \$npm_package_name >out"; sed -i "s/\"name\": \"[^\"]*\"/\"name\": \"me\"/" package.json; npm run --silent hi; cat out; rm -rf .npm; NPM_CONFIG_CACHE=$H/.npm npm pack --silent 2>&1; rm -rf "$H/.npm"'
kfs_done
