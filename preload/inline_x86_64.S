/* preload/inline_x86_64.S — where replaced `syscall` instructions come out, and dlopen as seen from its caller */
#if defined __x86_64__
    .text
/* Called from a page of jumps (inline.c) with the system call's registers; everything but %rax, %rcx and %r11 has to survive, vector registers and flags
 * included. A call that is the kernel's goes on 10 bytes behind its return address, where the instruction is. */
    .globl kfs_inline_entry
    .hidden kfs_inline_entry
    .type kfs_inline_entry, @function
    .p2align 4
kfs_inline_entry:
    pushfq
    cmpq $1023, %rax
    ja 1f
    leaq kfs_inline_served(%rip), %rcx
    btq %rax, (%rcx)
    jc 2f
1:  popfq
    popq %rcx
    leaq 10(%rcx), %rcx
    jmp *%rcx
2:  pushq %rbp
    movq %rsp, %rbp
    pushq %r9
    pushq %r8
    pushq %r10
    pushq %rdx
    pushq %rsi
    pushq %rdi
    movq %rax, %rdi
    movq %rsp, %rsi
    subq kfs_inline_state_bytes(%rip), %rsp
    andq $-64, %rsp
    cld
    movl kfs_inline_state_mask(%rip), %eax
    testl %eax, %eax
    jz 3f
    xorl %edx, %edx
    movq %rdx, 512(%rsp)
    movq %rdx, 520(%rsp)
    movq %rdx, 528(%rsp)
    movq %rdx, 536(%rsp)
    movq %rdx, 544(%rsp)
    movq %rdx, 552(%rsp)
    movq %rdx, 560(%rsp)
    movq %rdx, 568(%rsp)
    cmpl %edx, kfs_inline_state_compact(%rip)
    je 5f
    xsavec64 (%rsp)
    jmp 6f
5:  xsave64 (%rsp)
6:  call kfs_inline_call
    movq %rax, %rcx
    movl kfs_inline_state_mask(%rip), %eax
    xorl %edx, %edx
    xrstor64 (%rsp)
    jmp 4f
3:  fxsave64 (%rsp)
    call kfs_inline_call
    movq %rax, %rcx
    fxrstor64 (%rsp)
4:  movq %rcx, %rax
    leaq -48(%rbp), %rsp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %r10
    popq %r8
    popq %r9
    popq %rbp
    popfq
    ret
    .size kfs_inline_entry, .-kfs_inline_entry

/* dlopen goes by its return address: which library's search path, which namespace. So it gets one in our caller's code, that of a `ret`, which leads here. */
    .globl kfs_inline_dlopen
    .hidden kfs_inline_dlopen
    .type kfs_inline_dlopen, @function
    .p2align 4
kfs_inline_dlopen:
    movq (%rsp), %rax
    pushq %rdi
    pushq %rsi
    subq $8, %rsp
    movq %rax, %rdi
    call kfs_inline_gadget
    addq $8, %rsp
    popq %rsi
    popq %rdi
    testq %rax, %rax
    jz 1f
    leaq 2f(%rip), %rcx
    pushq %rcx
    pushq %rax
1:  movq kfs_inline_dlopen_real(%rip), %rcx
    jmp *%rcx
2:  pushq %rax
    call kfs_inline_loaded
    popq %rax
    ret
    .size kfs_inline_dlopen, .-kfs_inline_dlopen
#endif
    .section .note.GNU-stack, "", %progbits
