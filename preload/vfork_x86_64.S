/* preload/vfork_x86_64.S — vfork, with a mark for the child
 *
 * The child runs on the parent's stack and memory while the parent's thread sleeps in the kernel. As in libc the return address waits in a register,
 * which the system call keeps, because the child's returning and calling overwrites its place on the stack. kfs_pre_in_vfork is thread-local: only
 * this thread's (and therefore the child's) view changes; the parent puts back what it was, so that a vfork inside a vfork child ends well.
 */
#if defined __x86_64__
    .text
    .globl vfork, __vfork
    .type vfork, @function
    .type __vfork, @function
    .p2align 4
vfork:
__vfork:
    .cfi_startproc
    movq kfs_pre_in_vfork@gottpoff(%rip), %rdx
    movl %fs:(%rdx), %esi
    popq %rdi
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rdi
    movl $58, %eax /* SYS_vfork */
    syscall
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rip, 0
    testq %rax, %rax
    jz 1f
    movl %esi, %fs:(%rdx)
    js 2f
    ret
1:  movl $1, %fs:(%rdx)
    ret
2:  negl %eax
    pushq %rax
    .cfi_adjust_cfa_offset 8
    call __errno_location@PLT
    popq %rdx
    .cfi_adjust_cfa_offset -8
    movl %edx, (%rax)
    movq $-1, %rax
    ret
    .cfi_endproc
    .size vfork, .-vfork
    .size __vfork, .-__vfork
#endif
    .section .note.GNU-stack, "", %progbits
