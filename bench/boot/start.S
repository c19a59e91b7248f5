/* From the boot loader to C, and the one interrupt there is: the timer's, so that "hlt" returns. */
	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.globl start
start:
	cli
	lgdt descriptors_pointer
	ljmp $8, $1f
1:	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $stack_end, %esp
	call run
2:	hlt
	jmp 2b

	.globl on_timer
on_timer:
	pushl %eax
	movb $0x20, %al /* end of interrupt */
	outb %al, $0x20
	popl %eax
	iret

	.balign 8
descriptors:
	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
descriptors_pointer:
	.word . - descriptors - 1
	.long descriptors

	.bss
	.balign 16
	.skip 16384
stack_end:

	.section .note.GNU-stack, "", @progbits
