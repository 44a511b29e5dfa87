/* preload/vfork_aarch64.S — vfork, with a mark for the child; see vfork_x86_64.S
 *
 * The return address is in the link register, which the kernel keeps for both. The offset of kfs_pre_in_vfork is looked up before the call, so
 * that the way back needs nothing but registers.
 */
#if defined __aarch64__
    .text
    .globl vfork, __vfork
    .type vfork, %function
    .type __vfork, %function
    .p2align 4
vfork:
__vfork:
    .cfi_startproc
    hint #34 /* bti c */
    mrs x2, tpidr_el0
    adrp x3, :gottprel:kfs_pre_in_vfork
    ldr x3, [x3, #:gottprel_lo12:kfs_pre_in_vfork]
    add x5, x2, x3
    ldr w6, [x5]
    mov x0, #0x4111 /* CLONE_VFORK | CLONE_VM | SIGCHLD */
    mov x1, #0      /* the parent's stack */
    mov x2, #0
    mov x3, #0
    mov x4, #0
    mov x8, #220 /* SYS_clone */
    svc #0
    cbz x0, 1f
    str w6, [x5]
    tbnz x0, #63, 2f
    ret
1:  mov w6, #1
    str w6, [x5]
    ret
2:  stp x29, x30, [sp, #-32]!
    .cfi_adjust_cfa_offset 32
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    mov x29, sp
    neg w0, w0
    str w0, [sp, #16]
    bl __errno_location
    ldr w1, [sp, #16]
    str w1, [x0]
    mov x0, #-1
    ldp x29, x30, [sp], #32
    .cfi_restore x30
    .cfi_restore x29
    .cfi_adjust_cfa_offset -32
    ret
    .cfi_endproc
    .size vfork, .-vfork
    .size __vfork, .-__vfork
#endif
    .section .note.GNU-stack, "", %progbits
