#!/usr/bin/env bash
# tests/apps/encrypted.sh — an encrypted volume: nothing legible in its objects, secrets added, removed, wrong; rotation; one object verified alone
. "$(dirname "$0")/../lib/lib.sh"
kfs_volume
[ -z "$KFS_PLAIN" ] || { t_skip encrypted "a plain directory is not"; kfs_done; }
K=$KFS_BIN/kfs
store=$T/vol.db.objects
: >"$T/o"
echo 'a long passphrase' >"$T/pass"
echo 'not that passphrase' >"$T/wrong"
openssl genrsa -out "$T/rsa.pem" 2048 2>/dev/null && openssl rsa -in "$T/rsa.pem" -pubout -out "$T/pub.pem" 2>/dev/null || t_fail set-up-rsa

t_check format "KFS_KEY_FILE=$T/pass $K format --encrypt $URL >$T/o 2>&1" "$(cat "$T/o")"
yes 'a line that nobody else may read' | head -c 3000000 >"$T/plain/large"
for i in 1 2 3 4 5; do yes "small secret $i" | head -c $((i * 5000)) >"$T/plain/s$i"; done
export KFS_KEY_FILE=$T/pass
t_check write "krun cp -r $T/plain/. $P/"
kfsd_stop TERM
rm -rf "$T/cache"
t_check nothing-legible "[ -z \"\$(grep -rlE 'nobody else|small secret' $store)\" ]" "$(grep -rlE 'nobody else|small secret' "$store")"
t_check read-back "krun diff -r $T/plain $P"
kfsd_stop TERM
rm -rf "$T/cache"

unset KFS_KEY_FILE
krun true >"$T/o" 2>&1 </dev/null
t_check no-secret-is-said "grep -q 'encrypted.*--key-file' $T/o" "$(cat "$T/o")"
KFS_KEY_FILE=$T/wrong krun true >"$T/o" 2>&1
t_check wrong-secret-is-refused "grep -q 'opens none' $T/o && ! grep -q 'not that' $T/o" "$(cat "$T/o")"
t_check passphrase-from-the-environment "KFS_PASSPHRASE='a long passphrase' krun cmp $P/s1 $T/plain/s1"
kfsd_stop TERM
printf 'key_file = %s\n' "$T/pass" >>"$T/kfs.conf"
t_check secret-from-the-configuration "krun cmp $P/s2 $T/plain/s2"
kfsd_stop TERM
sed -i '/^key_file/d' "$T/kfs.conf"

t_check add-rsa "$K key add $URL --key-file $T/pass --new-key-file $T/pub.pem 2>$T/o" "$(cat "$T/o")"
t_check add-needs-the-secret "! $K key add $URL --key-file $T/wrong --new-key-file $T/pub.pem 2>$T/o && grep -q 'opens none' $T/o"
t_check list "$K key list $URL >$T/o && grep -q '^slot 1 *scrypt' $T/o && grep -q '^slot 2 *rsa ' $T/o && grep -q '^key 1' $T/o" "$(cat "$T/o")"
t_check list-json "$K key list --json $URL | $PY -c 'import json,sys; assert len(json.load(sys.stdin)) == 3'"
t_check rotate "$K key rotate $URL --key-file $T/rsa.pem 2>$T/o && $K key list $URL | grep -q '^key 2'" "$(cat "$T/o")"
t_check remove "$K key rm $URL 1 2>$T/o" "$(cat "$T/o")"
t_check remove-the-last "! $K key rm $URL 2 2>$T/o && grep -q 'last one' $T/o"
KFS_KEY_FILE=$T/pass krun true >"$T/o" 2>&1
t_check removed-secret-opens-nothing "grep -q 'opens none' $T/o" "$(cat "$T/o")"
export KFS_KEY_FILE=$T/rsa.pem
t_check old-content-with-the-other "krun cmp $P/large $T/plain/large"
before=$(find "$store/o" -type f | sort)
t_check new-content "krun sh -c 'seq 50000 >$P/new'"
kfsd_stop TERM
rm -rf "$T/cache"
t_check all-of-it "krun sh -c 'diff $P/large $T/plain/large && seq 50000 | cmp - $P/new'"
kfsd_stop TERM

new=$(find "$store/o" -type f | sort | comm -13 <(echo "$before") - | head -n 1)
old=$(echo "$before" | head -n 1)
t_check new-object-has-the-new-key "$K fsck --json --object $new | grep -q '\"key_id\":2'" "$($K fsck --json --object "$new" 2>&1)"
t_check old-object-has-the-old-key "$K fsck --json --object $old | grep -q '\"key_id\":1'"
cp "$old" "$T/alone"
t_check object-alone-needs-keys "! $K fsck --object $T/alone >$T/o 2>&1 && grep -q -- --keys $T/o" "$(cat "$T/o")"
t_check object-alone "$K fsck --object $T/alone --keys $store/kfs-keys >$T/o 2>&1 && grep -q 'whole' $T/o" "$(cat "$T/o")"
printf X | dd of="$T/alone" bs=1 seek=300 conv=notrunc status=none
t_check object-damaged "! $K fsck --object $T/alone --keys $store/kfs-keys >$T/o 2>&1 && grep -q 'damaged' $T/o" "$(cat "$T/o")"
truncate -s -1 "$T/alone"
t_check object-cut "! $K fsck --object $T/alone --keys $store/kfs-keys >$T/o 2>&1 && grep -q 'cut off' $T/o" "$(cat "$T/o")"
# The metadata's keys are lost: the copy in the store has them.
sqlite3 "$T/vol.db" "select value from setting where key='keys'" | sed '/^$/d' >"$T/record"
t_check copy-in-the-store "grep -q '^slot 2 rsa' $T/record && cmp -s $T/record $store/kfs-keys"
kfs_done
