/* Requests that neither agent nor engine takes: a host without Python whose agent is away.
 *
 * The cluster's objects are the agent's to ask for.  So an ADD is refused, and a DEL is journalled
 * for the agent, in the files that it pays its own debts from (pycni/endpoints.py,
 * pycni/cni/debts.py): the runtime removes the pod's namespace, and the kernel with it both ends of
 * the interface; address and record the agent takes back when it returns.  Nothing is removed here:
 * whoever journals a DEL of a pod that lives on only makes its next ADD begin anew.
 *
 * bin/pycni-relay.py has the same in Python.  Where the configuration says another datastore, an
 * engine has to be there, and nothing is answered but VERSION.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "relay.h"

#define VERSIONS "\"0.1.0\", \"0.2.0\", \"0.3.0\", \"0.3.1\", \"0.4.0\", \"1.0.0\", \"1.1.0\""
#define UNAVAILABLE_AFTER_S 30

enum { IO_FAILURE = 5, BAD_ENVIRONMENT = 4, BAD_CONFIGURATION = 7, TRY_AGAIN = 11, UNAVAILABLE = 50 };

/* --- answers -------------------------------------------------------------------------------- */

/* Append a text as JSON spells it between quotes; what does not fit is cut. */
static void escape(char *out, size_t size, const char *text)
{
	size_t n = strlen(out);
	for (; *text && n + 7 < size; text++) {
		if (*text == '"' || *text == '\\')
			n += (size_t)sprintf(out + n, "\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			n += (size_t)sprintf(out + n, "\\u%04x", *text);
		else
			out[n++] = *text;
		out[n] = 0;
	}
}

/* The version to answer in, as pycni.cni.protocol.version_of says. */
static const char *version_of(const struct hints *hints)
{
	char quoted[80];
	if (!hints->version[0])
		return "0.1.0";
	snprintf(quoted, sizeof quoted, "\"%s\"", hints->version);
	return !strchr(hints->version, '"') && strstr(VERSIONS, quoted) ? hints->version : "1.1.0";
}

static void __attribute__((noreturn, format(printf, 3, 4)))
fail(const struct hints *hints, int code, const char *format, ...)
{
	static char text[16384], escaped[32768];
	va_list values;
	va_start(values, format);
	vsnprintf(text, sizeof text, format, values);
	va_end(values);
	escape(escaped, sizeof escaped, text);
	dprintf(1, "{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": \"%s\"}", version_of(hints), code,
		escaped);
	_exit(1);
}

static void __attribute__((noreturn)) answer_version(const struct hints *hints)
{
	char escaped[512] = "";
	escape(escaped, sizeof escaped, hints->version[0] ? hints->version : "0.1.0");
	dprintf(1, "{\"cniVersion\": \"%s\", \"supportedVersions\": [" VERSIONS "]}", escaped);
	_exit(0);
}

static void __attribute__((noreturn)) refuse(const struct hints *hints, int code, const char *what)
{
	fail(hints, code,
	     "%sno agent answers in %s, and nobody else on this node may use the cluster's objects:"
	     " look at the agent (systemctl status pycni-agent, or its pod)",
	     what, hints->run_dir);
}

static void __attribute__((noreturn))
fail_to_keep(const struct hints *hints, const char *path)
{
	fail(hints, IO_FAILURE, "no agent answers, and %s can't be written for it: %s", path,
	     strerror(errno));
}

/* --- files ---------------------------------------------------------------------------------- */

/* Make a directory and those above it. */
static void make_directory(const char *path, mode_t mode)
{
	char part[8192];
	snprintf(part, sizeof part, "%s", path);
	for (char *slash = part; (slash = strchr(slash + 1, '/'));) {
		*slash = 0;
		mkdir(part, 0755);
		*slash = '/';
	}
	mkdir(part, mode);
}

/* --- STATUS --------------------------------------------------------------------------------- */

/* When the trouble began; the engine keeps that in the same file (pycni/cni/upkeep.py). */
static double began(const char *path, double now)
{
	char text[64] = "", *end = text;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof text - 1) > 0) {
		double since = strtod(text, &end);
		close(fd);
		if (end != text && !*end && since <= now)
			return since;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd >= 0) {
		dprintf(fd, "%.6f", now);
		close(fd);
	}
	return now;
}

static void __attribute__((noreturn)) answer_status(const struct hints *hints)
{
	char path[8192];
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	double now = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	make_directory(hints->run_dir, 0711);
	snprintf(path, sizeof path, "%s/trouble-since", hints->run_dir);
	if (now - began(path, now) >= UNAVAILABLE_AFTER_S)
		refuse(hints, UNAVAILABLE, "no ADD can work: ");
	_exit(0);
}

/* --- DEL ------------------------------------------------------------------------------------ */

/* What names of networks and containers look like (pycni.cni.netconf.IDENTIFIER). */
static int is_identifier(const char *text)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	return text && *text && !strchr("_.-", *text) && !text[strspn(text, letters)];
}

static int is_interface(const char *text)
{
	if (!text || !*text || strlen(text) > 15 || !strcmp(text, ".") || !strcmp(text, ".."))
		return 0;
	for (; *text; text++)
		if (*text <= ' ' || *text > '~' || strchr("%/:", *text))
			return 0;
	return 1;
}

static void require_names(const struct hints *hints, const char *container, const char *ifname)
{
	if (!is_identifier(container) || !is_interface(ifname))
		fail(hints, BAD_ENVIRONMENT,
		     "DEL needs CNI_CONTAINERID and CNI_IFNAME, well formed, in the environment:"
		     " set them and call again");
	if (!is_identifier(hints->name))
		fail(hints, BAD_CONFIGURATION,
		     "network configuration: 'name' must be a string of letters, digits, '_', '.' and"
		     " '-'");
	if (hints->has_bad_state_dir)
		fail(hints, BAD_CONFIGURATION,
		     "network configuration: 'state_dir' must be an absolute path");
}

/* Hold the lock of a key, that of pycni.keylocks, until the end of this process. */
static void lock_key(const struct hints *hints, const char *key, const char *digest)
{
	char path[8192], place[16] = "";
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	memcpy(place, digest, 15);
	lock.l_start = (off_t)strtoull(place, NULL, 16);
	make_directory(hints->run_dir, 0711);
	snprintf(path, sizeof path, "%s/endpoints.lock", hints->run_dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		fail_to_keep(hints, path);
	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return;
	if (errno != EAGAIN && errno != EACCES)
		fail_to_keep(hints, path);
	fail(hints, TRY_AGAIN, "another request for %s is running, though no agent answers: try again",
	     key);
}

/* Write a file of the journal; it is on disk when this returns. */
static void keep(const struct hints *hints, const char *directory, const char *digest,
		 const char *text)
{
	char name[64], new[64];
	snprintf(name, sizeof name, "%.40s.json", digest);
	snprintf(new, sizeof new, "%.40s.json.new", digest);
	int place = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place < 0)
		fail_to_keep(hints, directory);
	if (!faccessat(place, name, F_OK, 0))
		return; /* It is owed already, and what an engine wrote says more. */
	int fd = openat(place, new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write_all(fd, text, strlen(text)) || fsync(fd) ||
	    renameat(place, new, place, name) || fsync(place)) {
		int error = errno;
		unlinkat(place, new, 0);
		errno = error;
		fail_to_keep(hints, directory);
	}
}

static void __attribute__((noreturn)) journal_del(const struct hints *hints)
{
	static char key[16384], text[65536], directory[8192];
	const char *container = getenv("CNI_CONTAINERID"), *ifname = getenv("CNI_IFNAME");
	char digest[65], quoted[64] = "", suffix[80] = "";
	require_names(hints, container, ifname);
	if ((size_t)snprintf(key, sizeof key, "%s/%s/%s", hints->name, container, ifname) >= sizeof key)
		fail(hints, BAD_ENVIRONMENT, "CNI_CONTAINERID is too long to be remembered");
	sha256_hex(key, strlen(key), digest);
	lock_key(hints, key, digest);
	escape(quoted, sizeof quoted, ifname);
	if (strcmp(ifname, "eth0"))
		snprintf(suffix, sizeof suffix, ".%s", quoted);
	snprintf(text, sizeof text,
		 "{\"key\": {\"network\": \"%s\", \"containerID\": \"%s\", \"ifname\": \"%s\"},"
		 " \"handle\": \"%s.%s%s\", \"addresses\": []}",
		 hints->name, container, quoted, hints->name, container, suffix);
	make_directory(hints->state_dir[0] ? hints->state_dir : DEFAULT_STATE_DIR, 0700);
	snprintf(directory, sizeof directory, "%s/journal",
		 hints->state_dir[0] ? hints->state_dir : DEFAULT_STATE_DIR);
	make_directory(directory, 0700);
	keep(hints, directory, digest, text);
	_exit(0);
}

/* -------------------------------------------------------------------------------------------- */

void answer_alone(const struct hints *hints)
{
	const char *command = getenv("CNI_COMMAND");
	if (!command)
		return;
	if (!strcmp(command, "VERSION"))
		answer_version(hints);
	if (strcmp(hints->datastore_type[0] ? hints->datastore_type : hints->datastore, "kubernetes"))
		return;
	if (!strcmp(command, "DEL"))
		journal_del(hints);
	if (!strcmp(command, "STATUS"))
		answer_status(hints);
	if (!strcmp(command, "ADD") || !strcmp(command, "CHECK") || !strcmp(command, "GC"))
		refuse(hints, TRY_AGAIN, "");
}
