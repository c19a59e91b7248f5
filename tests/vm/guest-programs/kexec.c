/*
 * kexec load KERNEL INITRD [COMMAND-LINE] - makes a kernel ready; without a command line, with ours
 * kexec now                               - shuts devices down as a reboot does, and starts it
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "kexec: %s: %s\n", what, strerror(errno));
	return 1;
}

/* The command line of the running kernel, without its newline. */
static const char *own_command_line(void)
{
	static char line[4096];
	FILE *file = fopen("/proc/cmdline", "r");

	if (!file || !fgets(line, sizeof(line), file))
		exit(fail("/proc/cmdline"));
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	return line;
}

static int load(const char *kernel, const char *initrd, const char *command_line)
{
	int kernel_fd = open(kernel, O_RDONLY | O_CLOEXEC);
	int initrd_fd = open(initrd, O_RDONLY | O_CLOEXEC);

	if (kernel_fd < 0)
		return fail(kernel);
	if (initrd_fd < 0)
		return fail(initrd);
	if (syscall(SYS_kexec_file_load, kernel_fd, initrd_fd, strlen(command_line) + 1, command_line, 0UL))
		return fail("kexec_file_load");
	return 0;
}

int main(int argc, char **argv)
{
	if ((argc == 4 || argc == 5) && !strcmp(argv[1], "load"))
		return load(argv[2], argv[3], argc == 5 ? argv[4] : own_command_line());
	if (argc == 2 && !strcmp(argv[1], "now")) {
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
		return fail("reboot");
	}
	fputs("usage: kexec load KERNEL INITRD [COMMAND-LINE] | kexec now\n", stderr);
	return 2;
}
