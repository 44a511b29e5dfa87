#!/usr/bin/env bash
# tests/suites/python.sh — CPython's own tests of what touches files (Debian's libpython3.11-testsuite), for the system's interpreter
. "$(dirname "$0")/lib.sh"
MODULES=${KFS_SUITE_MODULES:-test_os test_posix test_shutil test_pathlib test_io test_fileio test_file test_largefile test_tarfile test_zipfile test_glob
    test_tempfile test_mmap test_dbm test_dbm_dumb test_dbm_ndbm test_shelve test_mailbox test_logging test_subprocess test_multiprocessing_fork
    test_multiprocessing_spawn test_fcntl test_genericpath test_posixpath test_filecmp test_import test_venv test_stat test_gzip test_bz2 test_lzma
    test_fileinput test_linecache test_py_compile test_compileall test_zipimport test_zipapp test_runpy test_selectors test_socketserver
    test_cmd_line_script test_pkgutil test_poll test_mimetypes test_httpservers test_asyncio}
PYTHON=/usr/bin/python3
suite_have() { $PYTHON -c 'import test.test_os, test.test_pathlib' 2>/dev/null; }
suite_install() { suite_apt libpython3.11-testsuite; }
suite_run() { # SIDE DIR LOG
    : >"$3"
    rm -rf "$SUITES_OUT/python.$1.xml"
    mkdir -p "$SUITES_OUT/python.$1.xml"
    local m
    for m in $MODULES; do
        TMPDIR=$2 timeout -k 5 600 "${ON[@]}" bash -c 'cd "$1" && exec "$2" -m test --junit-xml "$3" --tempdir "$1" "$4"' - \
            "$2" $PYTHON "$SUITES_OUT/python.$1.xml/$m.xml" "$m" >>"$3" 2>&1
    done
}
suite_cases() { # SIDE LOG
    $PYTHON - "$SUITES_OUT/python.$1.xml" $MODULES <<'EOF'
import os, sys, xml.etree.ElementTree as tree
where, modules = sys.argv[1], sys.argv[2:]
for m in modules:
    path = os.path.join(where, m + '.xml')
    if not os.path.exists(path):
        print('fail', m)
        continue
    for case in tree.parse(path).iter('testcase'):
        name = case.get('name').removeprefix('test.').replace(' ', '_')
        if not name.startswith(m):
            name = m + '.' + name
        if case.find('failure') is not None or case.find('error') is not None:
            print('fail', name)
        elif case.find('skipped') is not None or case.get('status') == 'notrun':
            skipped = case.find('skipped')
            print('skip', name, '', ' '.join((skipped.text or '').split()) if skipped is not None else '')
        else:
            print('ok', name)
EOF
}
suite_main "$@"
