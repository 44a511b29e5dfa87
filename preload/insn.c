#include "preload/insn.h"
#include <string.h>

/* What follows an opcode. */
enum { NONE, MODRM, IMM8, IMMZ, MODRM_IMM8, MODRM_IMMZ, REL8, RELZ, OTHER, BAD };

/* The one-byte opcodes, 16 a row; OTHER: special cases of read_one. */
static const char one[256 + 1] =
    "mmmm8zbommmm8zbo"  /* 00 */
    "mmmm8zbbmmmm8zbb"  /* 10 */
    "mmmm8zpbmmmm8zpb"  /* 20 */
    "mmmm8zpbmmmm8zpb"  /* 30 */
    "pppppppppppppppp"  /* 40: REX, taken before */
    "nnnnnnnnnnnnnnnn"  /* 50 */
    "bbompppp" "zZ8Mnnnn" /* 60 */
    "rrrrrrrrrrrrrrrr"  /* 70 */
    "MZbMmmmmmmmmmmmo"  /* 80 */
    "nnnnnnnnnnbnnnnn"  /* 90 */
    "oooonnnn8znnnnnn"  /* a0 */
    "88888888oooooooo"  /* b0 */
    "MMonooMZononn8bn"  /* c0 */
    "mmmmbbbnmmmmmmmm"  /* d0 */
    "rrrr8888RRbrnnnn"  /* e0 */
    "pnppnnoonnnnnnmm"; /* f0 */

/* Those behind 0f. */
static const char two[256 + 1] =
    "mmmmbnnnnnbnbmnb"  /* 00 */
    "mmmmmmmmmmmmmmmm"  /* 10 */
    "mmmmbbbbmmmmmmmm"  /* 20 */
    "nnnnnnbnobobbbbb"  /* 30 */
    "mmmmmmmmmmmmmmmm"  /* 40 */
    "mmmmmmmmmmmmmmmm"  /* 50 */
    "mmmmmmmmmmmmmmmm"  /* 60 */
    "MMMMmmmnoobbmmmm"  /* 70 */
    "RRRRRRRRRRRRRRRR"  /* 80 */
    "mmmmmmmmmmmmmmmm"  /* 90 */
    "nnnmMmbbnnnmMmmm"  /* a0 */
    "mmmmmmmmmmMmmmmm"  /* b0 */
    "mmMmMMMmnnnnnnnn"  /* c0 */
    "mmmmmmmmmmmmmmmm"  /* d0 */
    "mmmmmmmmmmmmmmmm"  /* e0 */
    "mmmmmmmmmmmmmmmm"; /* f0 */

static int kind_of(char c)
{
    switch (c) {
    case 'n':
        return NONE;
    case 'm':
        return MODRM;
    case '8':
        return IMM8;
    case 'z':
        return IMMZ;
    case 'M':
        return MODRM_IMM8;
    case 'Z':
        return MODRM_IMMZ;
    case 'r':
        return REL8;
    case 'R':
        return RELZ;
    case 'o':
        return OTHER;
    default:
        return BAD;
    }
}

struct reader {
    const uint8_t *p;
    size_t n, at;
    bool rex_w, data16, addr32, repne;
};

static bool have(const struct reader *r, size_t k)
{
    return r->at + k <= r->n;
}

/* ModRM, SIB and displacement. */
static bool modrm(struct reader *r, struct kfs_insn *ret)
{
    if (!have(r, 1))
        return false;
    uint8_t m = r->p[r->at++];
    unsigned mod = m >> 6, rm = m & 7;
    if (mod == 3)
        return true;
    unsigned disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    if (rm == 4) {
        if (!have(r, 1))
            return false;
        if (mod == 0 && (r->p[r->at] & 7) == 5)
            disp = 4;
        r->at++;
    } else if (mod == 0 && rm == 5) {
        disp = 4;
        ret->fixed = true; /* relative to the instruction's end */
    }
    r->at += disp;
    return true;
}

static unsigned immz(const struct reader *r)
{
    return r->data16 && !r->rex_w ? 2 : 4;
}

static bool branch(struct reader *r, unsigned bytes, struct kfs_insn *ret)
{
    int32_t d = 0;
    if (!have(r, bytes) || (bytes == 4 && immz(r) != 4)) /* 16-bit branches: processors differ */
        return false;
    if (bytes == 1)
        d = (int8_t)r->p[r->at];
    else
        memcpy(&d, r->p + r->at, 4);
    r->at += bytes;
    ret->branch = ret->fixed = true;
    ret->target = (int64_t)r->at + d;
    return true;
}

static bool tail(struct reader *r, int kind, struct kfs_insn *ret)
{
    switch (kind) {
    case NONE:
        return true;
    case MODRM:
        return modrm(r, ret);
    case IMM8:
        r->at++;
        return true;
    case IMMZ:
        r->at += immz(r);
        return true;
    case MODRM_IMM8:
        return modrm(r, ret) && ++r->at;
    case MODRM_IMMZ:
        return modrm(r, ret) && (r->at += immz(r));
    case REL8:
        return branch(r, 1, ret);
    case RELZ:
        return branch(r, 4, ret);
    default:
        return false;
    }
}

/* Behind the map and prefix bytes of VEX and EVEX. */
static bool vector(struct reader *r, unsigned map, struct kfs_insn *ret)
{
    if (!have(r, 1))
        return false;
    uint8_t op = r->p[r->at++];
    switch (map) {
    case 1:
        if (op == 0x77)
            return true;
        return tail(r, (op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6) ? MODRM_IMM8 : MODRM, ret);
    case 2:
    case 5:
    case 6:
        return tail(r, MODRM, ret);
    case 3:
        return tail(r, MODRM_IMM8, ret);
    default:
        return false;
    }
}

static bool read_two(struct reader *r, struct kfs_insn *ret)
{
    if (!have(r, 1))
        return false;
    uint8_t op = r->p[r->at++];
    switch (op) {
    case 0x38:
    case 0x3a:
        r->at++;
        return tail(r, op == 0x38 ? MODRM : MODRM_IMM8, ret);
    case 0x78:
    case 0x79:
        return !r->data16 && !r->repne && tail(r, MODRM, ret);
    default:
        return tail(r, kind_of(two[op]), ret);
    }
}

static bool read_special(struct reader *r, uint8_t op, struct kfs_insn *ret)
{
    switch (op) {
    case 0x0f:
        return read_two(r, ret);
    case 0x62: /* EVEX */
        if (!have(r, 3) || (r->p[r->at] & 8))
            return false;
        r->at += 3;
        return vector(r, r->p[r->at - 3] & 7u, ret);
    case 0xc4:
        if (!have(r, 2))
            return false;
        r->at += 2;
        return vector(r, r->p[r->at - 2] & 31u, ret);
    case 0xc5:
        r->at++;
        return vector(r, 1, ret);
    case 0x8f: /* pop; what looks like another register is XOP */
        return have(r, 1) && ((r->p[r->at] >> 3) & 7) == 0 && tail(r, MODRM, ret);
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa3:
        r->at += r->addr32 ? 4 : 8;
        return true;
    case 0xc2:
    case 0xca:
        r->at += 2;
        return true;
    case 0xc8:
        r->at += 3;
        return true;
    case 0xf6:
    case 0xf7: {
        bool test = have(r, 1) && ((r->p[r->at] >> 3) & 7) < 2;
        return tail(r, !test ? MODRM : op == 0xf6 ? MODRM_IMM8 : MODRM_IMMZ, ret);
    }
    default: /* b8 to bf */
        if (op == 0xb8 && r->at == 1 && have(r, 4)) {
            ret->sets_eax = true;
            memcpy(&ret->value, r->p + r->at, 4);
        }
        r->at += r->rex_w ? 8 : immz(r);
        return true;
    }
}

bool kfs_insn_read(const uint8_t *p, size_t n, struct kfs_insn *ret)
{
    struct reader r = {.p = p, .n = n < 15 ? n : 15};
    memset(ret, 0, sizeof *ret);
    uint8_t op = 0;
    for (;; r.at++) {
        if (!have(&r, 1))
            return false;
        op = p[r.at];
        if (op == 0x66)
            r.data16 = true;
        else if (op == 0x67)
            r.addr32 = true;
        else if (op == 0xf2)
            r.repne = true;
        else if (one[op] != 'p' || (op & 0xf0) == 0x40)
            break;
    }
    if ((op & 0xf0) == 0x40) {
        r.rex_w = op & 8;
        r.at++;
        if (!have(&r, 1))
            return false;
        op = p[r.at];
        if (one[op] == 'p') /* a prefix behind REX: no compiler does that */
            return false;
    }
    r.at++;
    if (op == 0xff && have(&r, 1)) { /* calls and jumps through a pointer: the address to return to would be another one */
        unsigned reg = (p[r.at] >> 3) & 7;
        ret->fixed = reg >= 2 && reg <= 5;
    }
    bool ok = kind_of(one[op]) == OTHER ? read_special(&r, op, ret) : tail(&r, kind_of(one[op]), ret);
    ret->length = (unsigned)r.at;
    ret->call = op == 0xe8;
    return ok && r.at <= r.n;
}
