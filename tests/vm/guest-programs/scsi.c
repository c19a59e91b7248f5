/*
 * scsi DEVICE in|out LENGTH BYTE... - has a disk do one command, given in hexadecimal, and move that many
 * bytes of data, whether the command has as many or not; says what became of it.
 */

#include <fcntl.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define TIMEOUT_MS 20000

int main(int argc, char **argv)
{
	unsigned char command[16], sense[32] = {0}, *data;
	sg_io_hdr_t io = {
		.interface_id = 'S', .cmdp = command, .sbp = sense, .mx_sb_len = sizeof(sense), .timeout = TIMEOUT_MS};
	int fd;

	if (argc < 5 || argc > 4 + (int)sizeof(command)) {
		fputs("usage: scsi DEVICE in|out LENGTH BYTE...\n", stderr);
		return 2;
	}
	for (int i = 4; i < argc; i++)
		command[io.cmd_len++] = (unsigned char)strtoul(argv[i], NULL, 16);
	io.dxfer_direction = !strcmp(argv[2], "out") ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV;
	io.dxfer_len = (unsigned)strtoul(argv[3], NULL, 10);
	data = malloc(io.dxfer_len + 1);
	if (!data)
		return 2;
	memset(data, 0x5a, io.dxfer_len);
	io.dxferp = data;
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, SG_IO, &io)) {
		perror(argv[1]);
		return 1;
	}
	printf("status %d host %d driver %d residue %d sense %02x/%02x/%02x\n", io.status, io.host_status,
	       io.driver_status, io.resid, sense[2] & 0xf, sense[12], sense[13]);
	return 0;
}
