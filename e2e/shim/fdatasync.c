/*
 * A shim over fdatasync and fsync, preloaded into a node under test (LD_PRELOAD).
 *
 * CONCH_SHIM_CONTROL names a file that the test writes (whole, by rename). Its first word says what happens to a sync of
 * a file whose path holds the rest of the line:
 *   pass                  nothing (also when the file is missing)
 *   hold  SUBSTRING       the call does not return, and nothing is synced, until the line changes
 *   fail  SUBSTRING       the call returns -1 with EIO, and nothing is synced
 * Each first hold and each failure appends a line to CONCH_SHIM_CONTROL.events, so that a test can wait for it.
 *
 * The log, SQLite and the index sync through these two calls and are told apart by their paths. Not covered: O_DSYNC,
 * msync, sync_file_range, raw system calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum verdict { PASS, HOLD, FAIL };

static enum verdict rule_for(const char *path)
{
	const char *control = getenv("CONCH_SHIM_CONTROL");
	char line[512];
	if (!control)
		return PASS;
	int fd = open(control, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return PASS;
	ssize_t n = read(fd, line, sizeof line - 1);
	close(fd);
	if (n <= 0)
		return PASS;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	char *pattern = strchr(line, ' ');
	if (!pattern)
		return PASS;
	*pattern++ = 0;
	if (!strstr(path, pattern))
		return PASS;
	if (!strcmp(line, "hold"))
		return HOLD;
	if (!strcmp(line, "fail"))
		return FAIL;
	return PASS;
}

static void tell(const char *what, const char *path)
{
	const char *control = getenv("CONCH_SHIM_CONTROL");
	char name[512], line[512];
	snprintf(name, sizeof name, "%s.events", control);
	int len = snprintf(line, sizeof line, "%s %s\n", what, path);
	int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (write(fd, line, (size_t)len) < 0) {
		/* the test notices: it waits for this line with a deadline */
	}
	close(fd);
}

static int synced(long number, int fd)
{
	char link[64], path[400];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = 0;

	int told = 0;
	for (;;) {
		switch (rule_for(path)) {
		case PASS:
			return (int)syscall(number, fd);
		case FAIL:
			tell("failed", path);
			errno = EIO;
			return -1;
		case HOLD:
			if (!told)
				tell("held", path);
			told = 1;
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		}
	}
}

int fdatasync(int fd)
{
	return synced(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return synced(SYS_fsync, fd);
}
