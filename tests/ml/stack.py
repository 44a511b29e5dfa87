"""tests/ml/stack.py DIR [CASE…] — what machine-learning libraries do with files, one case a library: write, read, map, lock, several processes

Prints "ok CASE", "not ok CASE  why" or "skip CASE  why". Runs on any file system; each case has an empty directory of its own.
"""
import importlib
import multiprocessing as mp
import os
import random
import sys
import time
import traceback

CASES = []


def case(*modules):
    def note(f):
        CASES.append((f.__name__, modules, f))
        return f
    return note


def in_processes(function, args, method="fork"):
    context = mp.get_context(method)
    processes = [context.Process(target=function, args=a) for a in args]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    codes = [p.exitcode for p in processes]
    assert codes == [0] * len(codes), f"exit codes {codes}"


@case("numpy")
def numpy_files(d):
    import numpy as np
    a = np.arange(1_000_000, dtype=np.float64).reshape(1000, 1000)
    np.save(f"{d}/a.npy", a)
    assert (np.load(f"{d}/a.npy") == a).all()
    m = np.load(f"{d}/a.npy", mmap_mode="r")
    assert m[999, 999] == 999_999
    m = np.load(f"{d}/a.npy", mmap_mode="r+")
    m[0, :] = -1
    m.flush()
    del m
    assert (np.load(f"{d}/a.npy")[0] == -1).all()
    c = np.load(f"{d}/a.npy", mmap_mode="c")
    c[1, :] = -2
    assert np.load(f"{d}/a.npy")[1, 0] == 1000
    np.savez_compressed(f"{d}/b.npz", x=a, y=a[:10])
    with np.load(f"{d}/b.npz") as z:
        assert (z["y"] == a[:10]).all() and (z["x"] == a).all()
    w = np.memmap(f"{d}/new.bin", dtype=np.int32, mode="w+", shape=(1 << 20,))
    w[:] = np.arange(1 << 20)
    w.flush()
    assert (np.fromfile(f"{d}/new.bin", dtype=np.int32) == np.arange(1 << 20)).all()
    a.tofile(f"{d}/raw")
    with open(f"{d}/raw", "rb") as f:
        f.seek(8 * 1000)
        assert np.fromfile(f, count=3).tolist() == [1000.0, 1001.0, 1002.0]


def memmap_fill(path, i):
    import numpy as np
    w = np.memmap(path, dtype=np.int32, mode="r+")
    w[i::4] = i
    w.flush()


@case("numpy")
def numpy_shared_by_processes(d):
    import numpy as np
    path = f"{d}/shared"
    np.zeros(1 << 18, dtype=np.int32).tofile(path)
    for method in "fork", "spawn":
        in_processes(memmap_fill, [(path, i) for i in range(4)], method)
        assert (np.fromfile(path, dtype=np.int32) == np.arange(1 << 18) % 4).all()
        np.zeros(1 << 18, dtype=np.int32).tofile(path)


@case("pandas", "pyarrow")
def pandas_files(d):
    import pandas as pd
    t = pd.DataFrame({"n": range(20_000), "s": [f"row {i}" for i in range(20_000)], "x": [i / 7 for i in range(20_000)]})
    t.to_csv(f"{d}/t.csv", index=False)
    assert pd.read_csv(f"{d}/t.csv").equals(t)
    assert sum(len(c) for c in pd.read_csv(f"{d}/t.csv", chunksize=999)) == 20_000
    t.to_csv(f"{d}/t.csv", index=False, mode="a", header=False)
    assert len(pd.read_csv(f"{d}/t.csv")) == 40_000
    for name in "t.csv.gz", "t.csv.zip":
        t.to_csv(f"{d}/{name}", index=False)
        assert pd.read_csv(f"{d}/{name}").equals(t)
    t.to_parquet(f"{d}/t.parquet")
    assert pd.read_parquet(f"{d}/t.parquet").equals(t)
    assert list(pd.read_parquet(f"{d}/t.parquet", columns=["x"]).columns) == ["x"]
    t.to_pickle(f"{d}/t.pkl")
    assert pd.read_pickle(f"{d}/t.pkl").equals(t)
    t.to_json(f"{d}/t.jsonl", orient="records", lines=True)
    assert len(pd.read_json(f"{d}/t.jsonl", lines=True)) == 20_000


@case("pyarrow")
def arrow_files(d):
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.feather as feather
    import pyarrow.parquet as pq
    t = pa.table({"n": list(range(50_000)), "k": [f"k{i % 7}" for i in range(50_000)]})
    pq.write_table(t, f"{d}/t.parquet", row_group_size=5000)
    assert pq.read_table(f"{d}/t.parquet", memory_map=True).equals(t)
    assert pq.ParquetFile(f"{d}/t.parquet").num_row_groups == 10
    ds.write_dataset(t, f"{d}/set", format="parquet", partitioning=["k"], partitioning_flavor="hive")
    back = ds.dataset(f"{d}/set", format="parquet", partitioning="hive")
    assert back.count_rows() == 50_000 and len(back.files) == 7
    assert back.to_table(filter=ds.field("k") == "k3").num_rows == sum(i % 7 == 3 for i in range(50_000))
    with pa.OSFile(f"{d}/t.arrow", "wb") as f, pa.ipc.new_file(f, t.schema) as w:
        for b in t.to_batches(max_chunksize=1000):
            w.write_batch(b)
    with pa.memory_map(f"{d}/t.arrow") as f:
        assert pa.ipc.open_file(f).read_all().equals(t)
    feather.write_feather(t, f"{d}/t.feather")
    assert feather.read_table(f"{d}/t.feather", memory_map=True).equals(t)


def h5_open(path, mode, expected):
    import h5py
    try:
        h5py.File(path, mode).close()
        got = "ok"
    except OSError:
        got = "refused"
    assert got == expected, got


def h5_read_swmr(path, ready, more):
    import h5py
    with h5py.File(path, "r", libver="latest", swmr=True) as f:
        data = f["x"]
        ready.set()
        assert more.wait(60)
        data.refresh()
        assert len(data) == 2000 and data[1999] == 1999


@case("h5py")
def h5_files(d):
    import h5py
    import numpy as np
    with h5py.File(f"{d}/a.h5", "w") as f:
        f.create_dataset("x", data=np.arange(100_000).reshape(1000, 100), chunks=(100, 100), compression="gzip")
        f["x"].attrs["note"] = "hello"
        f.create_group("g/h")["y"] = [1, 2, 3]
        # A second writer, and a reader beside a writer, are refused by locks.
        f.flush()
        in_processes(h5_open, [(f"{d}/a.h5", "a", "refused"), (f"{d}/a.h5", "r", "refused")], "spawn")
    in_processes(h5_open, [(f"{d}/a.h5", "r", "ok")] * 3, "spawn")
    with h5py.File(f"{d}/a.h5", "r+") as f:
        f["x"][5] = 0
        f["z"] = np.zeros(10)
    with h5py.File(f"{d}/a.h5", "r") as f:
        assert f["x"][6, 1] == 601 and f["x"][5].sum() == 0 and f["x"].attrs["note"] == "hello" and "z" in f
    # One writer, a reader at the same time.
    context = mp.get_context("spawn")
    ready, more = context.Event(), context.Event()
    with h5py.File(f"{d}/live.h5", "w", libver="latest") as f:
        x = f.create_dataset("x", (1000,), maxshape=(None,), chunks=(100,), dtype="i8")
        x[:] = np.arange(1000)
        f.swmr_mode = True
        p = context.Process(target=h5_read_swmr, args=(f"{d}/live.h5", ready, more))
        p.start()
        assert ready.wait(60)
        x.resize((2000,))
        x[1000:] = np.arange(1000, 2000)
        x.flush()
        more.set()
        p.join()
        assert p.exitcode == 0


def zarr_fill(path, i):
    import zarr
    z = zarr.open_array(path, mode="r+")
    z[i * 100:(i + 1) * 100, :] = i


@case("zarr")
def zarr_store(d):
    import zarr
    z = zarr.create_array(f"{d}/z", shape=(400, 300), chunks=(100, 50), dtype="i4")
    in_processes(zarr_fill, [(f"{d}/z", i) for i in range(4)], "spawn")
    back = zarr.open_array(f"{d}/z", mode="r")
    assert [int(back[i * 100, 0]) for i in range(4)] == [0, 1, 2, 3] and int(back[:].sum()) == 6 * 100 * 300
    g = zarr.open_group(f"{d}/g", mode="w")
    g.create_array("a/b", shape=(10,), dtype="f8")[:] = 1.5
    g.attrs["k"] = "v"
    assert zarr.open_group(f"{d}/g", mode="r")["a/b"][3] == 1.5
    z.resize((500, 300))
    assert zarr.open_array(f"{d}/z", mode="r").shape == (500, 300)


def lmdb_add(path, i, writemap):
    import lmdb
    with lmdb.open(path, map_size=1 << 26, writemap=writemap) as e:
        for n in range(100):
            with e.begin(write=True) as t:
                count = int(t.get(b"count") or 0)
                t.put(b"count", str(count + 1).encode())
                t.put(f"{i}-{n}".encode(), os.urandom(200))


@case("lmdb")
def lmdb_store(d):
    import lmdb
    for writemap in False, True:
        path = f"{d}/db{writemap:d}"
        with lmdb.open(path, map_size=1 << 26, writemap=writemap) as e, e.begin(write=True) as t:
            t.put(b"first", b"1")
        # Its locks are mutexes in a shared mapping.
        in_processes(lmdb_add, [(path, i, writemap) for i in range(4)], "spawn")
        with lmdb.open(path, map_size=1 << 26, readonly=True) as e, e.begin() as t:
            assert t.get(b"count") == b"400" and t.stat()["entries"] == 402, (t.get(b"count"), t.stat())
        with lmdb.open(path, map_size=1 << 26) as e:
            e.copy(f"{d}", compact=False) if not os.path.exists(f"{d}/data.mdb") else None
    with lmdb.open(f"{d}/one.mdb", subdir=False, map_size=1 << 24) as e, e.begin(write=True) as t:
        t.put(b"k", b"v" * 100_000)
    with lmdb.open(f"{d}/one.mdb", subdir=False, readonly=True, lock=False) as e, e.begin(buffers=True) as t:
        assert len(t.get(b"k")) == 100_000


@case("safetensors", "numpy")
def safetensors_files(d):
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file, save
    tensors = {f"layer.{i}": np.full((256, 256), i, dtype=np.float32) for i in range(16)}
    with open(f"{d}/m.safetensors", "wb") as f:
        f.write(save(tensors, metadata={"format": "np"}))
    back = load_file(f"{d}/m.safetensors")
    assert all((back[k] == v).all() for k, v in tensors.items())
    with safe_open(f"{d}/m.safetensors", framework="np") as f:
        assert f.get_tensor("layer.7")[0, 0] == 7 and f.get_slice("layer.9")[3:5, :2].shape == (2, 2)


@case("safetensors", "numpy")
def safetensors_save_file(d):
    """It renames by a system call instruction of its own."""
    import numpy as np
    from safetensors.numpy import load_file, save_file
    for i in range(3):
        save_file({"x": np.full(3, i)}, f"{d}/m.safetensors")
        assert list(load_file(f"{d}/m.safetensors")["x"]) == [i] * 3 and os.listdir(d) == ["m.safetensors"]
    for method in "fork", "spawn":
        in_processes(safetensors_save_one, [(d, i) for i in range(4)], method)
        assert sorted(os.listdir(d)) == ["0.safetensors", "1.safetensors", "2.safetensors", "3.safetensors", "m.safetensors"]


def safetensors_save_one(d, i):
    import threading
    import numpy as np
    from safetensors.numpy import load_file, save_file
    def save():
        save_file({"x": np.arange(1000) + i}, f"{d}/{i}.safetensors")
    threads = [threading.Thread(target=save) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert load_file(f"{d}/{i}.safetensors")["x"][999] == 999 + i


@case("PIL", "numpy")
def pictures(d):
    import numpy as np
    from PIL import Image
    rng = np.random.default_rng(1)
    for label in "cat", "dog":
        os.makedirs(f"{d}/{label}")
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(f"{d}/{label}/{i}.{('png', 'jpg', 'tiff', 'webp')[i % 4]}")
    seen = 0
    for path, _, names in os.walk(d):
        for name in names:
            with Image.open(f"{path}/{name}") as im:
                assert im.size == (48, 64)
                assert np.asarray(im.convert("RGB")).shape == (64, 48, 3)
                seen += 1
    assert seen == 40
    with open(f"{d}/cat/0.png", "rb") as f:
        Image.open(f).verify()


def duckdb_second(path):
    import duckdb
    try:
        duckdb.connect(path)
    except duckdb.IOException as e:
        assert "lock" in str(e).lower(), e
        return
    raise AssertionError("two writers")


def duckdb_reader(path):
    import duckdb
    with duckdb.connect(path, read_only=True) as c:
        assert c.execute("select sum(i) from t").fetchone()[0] == 499_999_500_000


@case("duckdb")
def duckdb_files(d):
    import duckdb
    path = f"{d}/d.duckdb"
    with duckdb.connect(path) as c:
        c.execute("create table t as select range as i, 'text ' || range as s from range(1000000)")
        in_processes(duckdb_second, [(path,)], "spawn")
        c.execute(f"copy t to '{d}/t.parquet' (format parquet)")
        c.execute(f"copy (select * from t limit 1000) to '{d}/t.csv'")
    in_processes(duckdb_reader, [(path,)] * 3, "spawn")
    with duckdb.connect(path) as c:
        assert c.execute(f"select count(*) from '{d}/t.parquet'").fetchone()[0] == 1_000_000
        assert c.execute(f"select count(*) from '{d}/*.csv'").fetchone()[0] == 1000
        c.execute("begin")
        c.execute("delete from t where i >= 10")
        c.execute("rollback")
        c.execute(f"set temp_directory = '{d}/tmp'")
        c.execute("set memory_limit = '60MB'")
        assert c.execute("select count(*) from (select * from t order by s desc)").fetchone()[0] == 1_000_000
        c.execute("checkpoint")


# ---- a cache of downloaded models, as the Hugging Face hub lays it out -------------------------------------------------

FILES = {"config.json": 700, "tokenizer.json": 200_000, "model-1.safetensors": 3_000_000, "model-2.safetensors": 3_000_001, "sub/merges.txt": 1}


def hub_content(name):
    return random.Random(name).randbytes(FILES[name])


def hub_get(cache, name, log):
    """blobs/ETAG by way of an .incomplete file, then a relative symlink snapshots/COMMIT/NAME, under a lock of the blob's."""
    from filelock import FileLock
    repo, etag, commit = f"{cache}/models--org--m", f"{random.Random(name).getrandbits(128):032x}", "c0ffee" * 6
    pointer, blob = f"{repo}/snapshots/{commit}/{name}", f"{repo}/blobs/{etag}"
    if os.path.exists(pointer):
        return pointer
    for path in pointer, blob, f"{repo}/refs/main", f"{cache}/.locks/models--org--m/x":
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with FileLock(f"{cache}/.locks/models--org--m/{etag}.lock"):
        if not os.path.exists(blob):
            with open(f"{blob}.incomplete", "ab") as f:
                data = hub_content(name)
                for at in range(0, len(data), 65536):
                    f.write(data[at:at + 65536])
            os.chmod(f"{blob}.incomplete", 0o644)
            os.replace(f"{blob}.incomplete", blob)
            with open(log, "a") as f:
                f.write(f"{name}\n")
        if not os.path.islink(pointer):
            os.symlink(os.path.relpath(blob, os.path.dirname(pointer)), pointer)
    with open(f"{repo}/refs/main.{os.getpid()}", "w") as f:
        f.write(commit)
    os.replace(f"{repo}/refs/main.{os.getpid()}", f"{repo}/refs/main")
    return pointer


def hub_user(cache, log, i):
    names = list(FILES)
    random.Random(i).shuffle(names)
    for name in names:
        with open(hub_get(cache, name, log), "rb") as f:
            assert f.read() == hub_content(name), name


@case("filelock")
def hub_cache_of_eight_processes(d):
    for method in "fork", "spawn":
        cache, log = f"{d}/{method}", f"{d}/{method}.log"
        in_processes(hub_user, [(cache, log, i) for i in range(8)], method)
        with open(log) as f:
            assert sorted(f.read().split()) == sorted(FILES), "something was fetched twice"
        repo = f"{cache}/models--org--m"
        assert len(os.listdir(f"{repo}/blobs")) == len(FILES)
        assert os.listdir(f"{repo}/refs") == ["main"]
        with open(f"{repo}/refs/main") as f:
            assert os.path.realpath(f"{repo}/snapshots/{f.read()}/sub/merges.txt").startswith(os.path.realpath(f"{repo}/blobs"))


# ---- the hub's own library, with a hub on loopback ------------------------------------------------------------------------

class Hub:
    """Answers what hf_hub_download and snapshot_download ask for."""
    COMMIT = "c0ffee" * 6 + "abcd"

    def __init__(self):
        import http.server
        import json
        import threading

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

            def answer(self, body):
                name = self.path.split("?")[0].partition("/resolve/")[2].partition("/")[2]
                if "/tree/" in self.path:
                    data = json.dumps([{"type": "file", "path": n, "size": FILES[n], "oid": f"{random.Random(n).getrandbits(160):040x}"} for n in FILES]).encode()
                elif "/api/models/" in self.path:
                    data = json.dumps({"id": "org/m", "modelId": "org/m", "sha": Hub.COMMIT, "siblings": [{"rfilename": n} for n in FILES], "private": False, "downloads": 0, "likes": 0, "tags": []}).encode()
                elif name in FILES:
                    data = hub_content(name)
                else:
                    data = None
                at = 0
                if data and self.headers.get("Range"):
                    at = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
                self.send_response(404 if data is None else 206 if at else 200)
                self.send_header("X-Repo-Commit", Hub.COMMIT)
                if name in FILES:
                    self.send_header("ETag", f'"{random.Random(name).getrandbits(160):040x}"')
                if at:
                    self.send_header("Content-Range", f"bytes {at}-{len(data) - 1}/{len(data)}")
                data = (data or b"")[at:]
                self.send_header("Content-Type", "application/json" if "/api/" in self.path else "application/octet-stream")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def hub_library_user(cache, i):
    os.environ["HF_HOME"] = cache
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
    for name in sorted(FILES, key=lambda n: random.Random(f"{n}{i}").random()):
        with open(hf_hub_download("org/m", name), "rb") as f:
            assert f.read() == hub_content(name), name
    path = snapshot_download("org/m")
    assert sorted(os.path.relpath(f"{d}/{n}", path) for d, _, names in os.walk(path) for n in names) == sorted(FILES)
    assert try_to_load_from_cache("org/m", "config.json") == f"{path}/config.json"


def hub_library_offline(cache):
    os.environ["HF_HOME"] = cache
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import scan_cache_dir, snapshot_download
    path = snapshot_download("org/m", local_files_only=True)
    assert len(os.listdir(path)) == len(FILES)
    report = scan_cache_dir(f"{cache}/hub")
    assert not report.warnings and len(report.repos) == 1 and report.size_on_disk == sum(FILES.values()), report
    report.delete_revisions(Hub.COMMIT).execute()
    assert not scan_cache_dir(f"{cache}/hub").repos


@case("huggingface_hub")
def hub_library(d):
    hub = Hub()
    os.environ.update(HF_ENDPOINT=hub.url, HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1", NO_PROXY="127.0.0.1", HF_HUB_DISABLE_SYMLINKS_WARNING="1")
    in_processes(hub_library_user, [(f"{d}/home", i) for i in range(4)], "spawn")
    blobs = os.listdir(f"{d}/home/hub/models--org--m/blobs")
    assert len(blobs) == len(FILES) and not [b for b in blobs if b.endswith(".incomplete")], blobs
    in_processes(hub_library_offline, [(f"{d}/home",)], "spawn")


@case("tokenizers")
def tokenizers_files(d):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    with open(f"{d}/corpus.txt", "w") as f:
        for i in range(2000):
            f.write(f"the quick brown fox {i} jumps over the lazy dog {i * 7}\n")
    t = Tokenizer(models.BPE(unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train([f"{d}/corpus.txt"], trainers.BpeTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False))
    t.save(f"{d}/tokenizer.json")
    t.model.save(d)
    assert sorted(os.listdir(d)) == ["corpus.txt", "merges.txt", "tokenizer.json", "vocab.json"]
    again = Tokenizer.from_file(f"{d}/tokenizer.json")
    assert again.encode("quick fox").ids == t.encode("quick fox").ids
    models.BPE.from_file(f"{d}/vocab.json", f"{d}/merges.txt")


# ---- training -------------------------------------------------------------------------------------------------------------

def tail(path, wanted, done):
    while not os.path.exists(path):
        time.sleep(0.005)
    with open(path, "rb") as f:
        got = b""
        while len(got) < wanted:
            more = f.read()
            got += more
            if not more:
                time.sleep(0.005)
    assert got == b"".join(b"event %06d\n" % i for i in range(wanted // 13))
    done.set()


@case()
def events_tailed_by_another_process(d):
    context = mp.get_context("spawn")
    done = context.Event()
    p = context.Process(target=tail, args=(f"{d}/events", 13 * 500, done))
    p.start()
    with open(f"{d}/events", "ab") as f:
        for i in range(500):
            f.write(b"event %06d\n" % i)
            f.flush()
        assert done.wait(60), "not all events arrived while the writer has the file open"
    p.join()
    assert p.exitcode == 0


def tensorboard_tail(logs, steps, ready, done):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    a = EventAccumulator(logs)
    ready.set()
    seen = 0
    while seen < steps:
        a.Reload()
        now = len(a.Scalars("loss")) if "loss" in a.Tags()["scalars"] else 0
        assert now >= seen
        seen = now
        time.sleep(0.01)
    assert [e.step for e in a.Scalars("loss")] == list(range(steps)) and a.Histograms("weights")
    done.set()


def tensorboard_one(writer, d):
    import numpy as np
    context = mp.get_context("spawn")
    ready, done = context.Event(), context.Event()
    p = context.Process(target=tensorboard_tail, args=(d, 200, ready, done))
    w = writer(d)
    p.start()
    assert ready.wait(100)
    for i in range(200):
        w.add_scalar("loss", 1 / (i + 1), i)
        if i % 50 == 0:
            w.add_histogram("weights", np.arange(100), i)
        if i % 10 == 9:
            w.flush()
    # flush() does not wait for the writer's own thread.
    assert any(w.flush() or done.wait(0.1) for _ in range(600)), "the reader has not seen all events while the writer has the file open"
    p.join()
    assert p.exitcode == 0
    w.close()


@case("tensorboardX", "tensorboard")
def tensorboard_events(d):
    from tensorboardX import SummaryWriter
    tensorboard_one(SummaryWriter, d)


@case("torch", "tensorboard")
def torch_tensorboard(d):
    from torch.utils.tensorboard import SummaryWriter
    tensorboard_one(SummaryWriter, d)


@case("webdataset", "numpy")
def webdataset_tars(d):
    import numpy as np
    import webdataset as wds
    with wds.ShardWriter(f"{d}/s-%04d.tar", maxcount=100, verbose=0) as w:
        for i in range(350):
            w.write({"__key__": f"k{i:04d}", "npy": np.full(50, i), "cls": i % 7, "json": {"i": i}})
    assert len(os.listdir(d)) == 4
    seen = {s["__key__"]: s for s in wds.WebDataset(f"{d}/s-{{0000..0003}}.tar", shardshuffle=False, empty_check=False).decode()}
    assert len(seen) == 350 and all((s["npy"] == s["json"]["i"]).all() and s["cls"] == s["json"]["i"] % 7 for s in seen.values())
    # Shards of a host are cached in the volume.
    os.mkdir(f"{d}/cache")
    assert len(list(wds.WebDataset(f"file:{d}/s-0001.tar", cache_dir=f"{d}/cache", shardshuffle=False, empty_check=False))) == 100


class Samples:
    def __init__(self, d):
        self.d = d

    def __len__(self):
        return 200

    def __getitem__(self, i):
        import torch
        return torch.load(f"{self.d}/s{i}.pt")


@case("torch")
def torch_loader(d):
    import torch
    for i in range(200):
        torch.save(torch.full((100,), float(i)), f"{d}/s{i}.pt")
    for method in "fork", "spawn":
        for persistent in False, True:
            loader = torch.utils.data.DataLoader(Samples(d), batch_size=10, num_workers=2, multiprocessing_context=method, persistent_workers=persistent)
            for _ in range(2):
                assert sum(float(b.sum()) for b in loader) == 100 * sum(range(200))
            del loader


@case("torch")
def torch_checkpoints(d):
    import torch
    model = torch.nn.Linear(512, 512)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(5):
        model(torch.randn(4, 512)).sum().backward()
        optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, f"{d}/new.pt")
        os.replace(f"{d}/new.pt", f"{d}/last.pt")
    back = torch.load(f"{d}/last.pt")
    again = torch.nn.Linear(512, 512)
    again.load_state_dict(back["model"])
    assert torch.equal(again.weight, model.weight) and back["step"] == 4 and os.listdir(d) == ["last.pt"]
    torch.save(model.state_dict(), f"{d}/old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(torch.load(f"{d}/old.pt")["weight"], model.weight)
    with open(f"{d}/stream.pt", "wb") as f:
        torch.save(model.state_dict(), f)
        f.flush()
        os.fsync(f.fileno())
    with open(f"{d}/stream.pt", "rb") as f:
        assert torch.equal(torch.load(f)["weight"], model.weight)
    torch.jit.script(model).save(f"{d}/script.pt")
    assert torch.equal(torch.jit.load(f"{d}/script.pt").weight, model.weight)


@case("torch")
def torch_mapped(d):
    import torch
    storage = torch.from_file(f"{d}/flat", shared=True, size=1000, dtype=torch.float32)
    storage.fill_(3)
    assert torch.from_file(f"{d}/flat", shared=False, size=1000).sum() == 3000
    if torch.__version__ < "2.1":
        return # torch.load cannot map files yet
    x = torch.arange(1 << 20)
    torch.save({"x": x}, f"{d}/x.pt")
    m = torch.load(f"{d}/x.pt", mmap=True)["x"]
    assert torch.equal(m, x)
    m += 1 # private: the file keeps what it has
    assert torch.equal(torch.load(f"{d}/x.pt", mmap=True)["x"], x)
    os.unlink(f"{d}/x.pt")
    assert torch.equal(m, x + 1)


def main():
    top, wanted = sys.argv[1], sys.argv[2:]
    failed = 0
    for name, modules, f in CASES:
        if wanted and name not in wanted:
            continue
        try:
            for m in modules:
                importlib.import_module(m)
        except ModuleNotFoundError as e:
            print(f"skip {name}  {e}", flush=True)
            continue
        try:
            os.makedirs(f"{top}/{name}")
            f(f"{top}/{name}")
            print(f"ok {name}", flush=True)
        except BaseException as e:
            failed += 1
            print(f"not ok {name}  {type(e).__name__}: {str(e)[:200]}", flush=True)
            print("".join("    " + line for line in traceback.format_exc().splitlines(True)[-12:]), flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
