#!/usr/bin/env bash
# tests/suites/python-sqlite.sh — CPython's test_sqlite3, which Debian's package of the tests lacks ($SUITES/cpython)
. "$(dirname "$0")/lib.sh"
suite_have() { suite_foreign cpython/Lib/test/test_sqlite3 && "$PY" -c 'import sqlite3, test.support.os_helper'; }
suite_install() { suite_foreign cpython/Lib/test/test_sqlite3 && suite_apt libpython3.11-testsuite; }
suite_run() { # SIDE DIR LOG
    cat >"$T/run.py" <<'EOP'
import os, sys, unittest
import test
test.__path__.append(sys.argv[1])
class Result(unittest.TextTestResult):
    def case(self, word, test, why=''):
        print('CASE', word, test.id().removeprefix('test.test_sqlite3.').replace(' ', '_'), '', why, flush=True)
    def addSuccess(self, test):
        self.case('ok', test)
    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.case('fail', test)
    def addError(self, test, err):
        super().addError(test, err)
        self.case('fail', test)
    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.case('fail', test)
    def addSkip(self, test, why):
        self.case('skip', test, why)
    def addExpectedFailure(self, test, err):
        self.case('ok', test)
runner = unittest.TextTestRunner(resultclass=Result)
names = sorted('test.test_sqlite3.' + n[:-3] for n in os.listdir(sys.argv[1] + '/test_sqlite3') if n.startswith('test_'))
sys.exit(not runner.run(unittest.defaultTestLoader.loadTestsFromNames(names)).wasSuccessful())
EOP
    (cd "$T" && TMPDIR=$2 timeout -k 5 "$SUITE_LIMIT" "${ON[@]}" sh -c 'cd "$1" && exec "$2" "$3" "$4"' sh "$2" "$PY" "$T/run.py" "$SUITES/cpython/Lib/test") >"$3" 2>&1
    echo "CASE $([ $? -eq 0 ] && echo ok || echo fail) ended" >>"$3"
}
suite_cases() { sed -n 's/^CASE //p' "$2"; } # SIDE LOG
suite_main "$@"
