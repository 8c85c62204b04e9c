/* The CNI plugin as the runtime calls it: hand the request to this node's agent.
 *
 * The same relay as bin/pycni, without an interpreter's start-up: one static program, libc only.
 * Without an agent, or when it does not answer in time, it becomes `pycni-engine`, which lies
 * beside it.  Wire format: see bin/pycni.
 *
 *     cc -static -Os -s -Wall -Wextra -o pycni relay/pycni.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_RUN_DIR "/run/pycni"
#define DEFAULT_TIMEOUT_S 30

extern char **environ;

struct buffer {
	char *data;
	size_t length, size;
};

static void die(const char *message)
{
	dprintf(1, "{\"cniVersion\": \"1.0.0\", \"code\": 5, \"msg\": \"%s\"}", message);
	_exit(1);
}

static void reserve(struct buffer *b, size_t more)
{
	if (b->size - b->length >= more)
		return;
	b->size = (b->length + more) * 2;
	b->data = realloc(b->data, b->size);
	if (!b->data)
		die("the relay is out of memory: try again");
}

static void append(struct buffer *b, const char *data, size_t length)
{
	reserve(b, length);
	memcpy(b->data + b->length, data, length);
	b->length += length;
}

/* Read up to the end; -1 when reading fails (or takes longer than a socket's time-out). */
static int read_all(int fd, struct buffer *b)
{
	for (;;) {
		reserve(b, 65536);
		ssize_t n = read(fd, b->data + b->length, 65536);
		if (n == 0)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		b->length += (size_t)n;
	}
}

static int write_all(int fd, const char *data, size_t length)
{
	while (length) {
		ssize_t n = write(fd, data, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data += n;
		length -= (size_t)n;
	}
	return 0;
}

/* --- reading "run_dir" and "agent_timeout" --------------------------------------------------- */

struct hints {
	char run_dir[4096];
	long timeout;
};

static size_t skip_blanks(const struct buffer *b, size_t i)
{
	while (i < b->length && strchr(" \t\r\n", b->data[i]) && b->data[i])
		i++;
	return i;
}

/* From an opening quote to behind the closing one. */
static size_t skip_string(const struct buffer *b, size_t i)
{
	for (i++; i < b->length && b->data[i] != '"'; i++)
		if (b->data[i] == '\\')
			i++;
	return i + 1;
}

static long hex4(const char *s)
{
	long value = 0;
	for (int i = 0; i < 4; i++) {
		int c = s[i] | 32;
		if (c >= '0' && c <= '9')
			value = value * 16 + c - '0';
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + c - 'a' + 10;
		else
			return -1;
	}
	return value;
}

static size_t encode_utf8(long c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)((0xf00 >> n) | c);
	return n;
}

/* Decode what stands between the quotes; 0 when it is no text that a path may hold (a NUL, half
 * of a surrogate pair).  What does not fit is cut: no key and no socket's path is that long. */
static int decode(const char *s, const char *end, char *out, size_t size)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *limit = out + size - 5;
	while (s < end && out < limit) {
		const char *found;
		if (*s != '\\') {
			*out++ = *s++;
		} else if (end - s >= 2 && (found = strchr(from, s[1])) && *found) {
			*out++ = to[found - from];
			s += 2;
		} else {
			long c = end - s < 6 || s[1] != 'u' ? -1 : hex4(s + 2);
			s += 6;
			if (c >= 0xd800 && c < 0xdc00 && end - s >= 6 && s[0] == '\\' && s[1] == 'u') {
				long low = hex4(s + 2);
				s += 6;
				c = low < 0xdc00 || low > 0xdfff
					    ? -1
					    : 0x10000 + ((c - 0xd800) << 10) + low - 0xdc00;
			}
			if (c <= 0 || (c >= 0xd800 && c < 0xe000))
				return 0;
			out += encode_utf8(c, out);
		}
	}
	*out = 0;
	return 1;
}

static void read_run_dir(const struct buffer *b, size_t i, struct hints *hints)
{
	size_t end = b->data[i] == '"' ? skip_string(b, i) : 0;
	if (!end || end > b->length ||
	    !decode(b->data + i + 1, b->data + end - 1, hints->run_dir, sizeof hints->run_dir) ||
	    hints->run_dir[0] != '/')
		strcpy(hints->run_dir, DEFAULT_RUN_DIR);
}

static void read_timeout(const struct buffer *b, size_t i, struct hints *hints)
{
	long value = 0;
	size_t start = i;
	while (i < b->length && i - start < 5 && b->data[i] >= '0' && b->data[i] <= '9')
		value = value * 10 + b->data[i++] - '0';
	int is_whole = i < b->length && !strchr(".eE0123456789", b->data[i]);
	hints->timeout = is_whole && value >= 1 && value <= 9999 ? value : DEFAULT_TIMEOUT_S;
}

/* Read both keys at the top level; of a key that is given twice, the last one counts.  What is
 * wrong is as good as absent: whoever answers the request complains of it. */
static void read_hints(const struct buffer *b, struct hints *hints)
{
	int depth = 0;
	for (size_t i = 0; i < b->length;) {
		char c = b->data[i], key[32];
		if (c == '{' || c == '[') {
			depth++;
			i++;
		} else if (c == '}' || c == ']') {
			depth--;
			i++;
		} else if (c != '"') {
			i++;
		} else {
			size_t start = i, end = skip_string(b, i);
			i = skip_blanks(b, end);
			if (depth != 1 || i >= b->length || b->data[i] != ':' ||
			    !decode(b->data + start + 1, b->data + end - 1, key, sizeof key))
				continue;
			i = skip_blanks(b, i + 1);
			if (i < b->length && !strcmp(key, "run_dir"))
				read_run_dir(b, i, hints);
			else if (i < b->length && !strcmp(key, "agent_timeout"))
				read_timeout(b, i, hints);
		}
	}
}

/* --- the agent ------------------------------------------------------------------------------ */

static int connect_agent(const struct hints *hints)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = hints->timeout};
	int length = snprintf(address.sun_path, sizeof address.sun_path, "%s/cni.sock",
			      hints->run_dir);
	if (length < 0 || (size_t)length >= sizeof address.sun_path)
		return -1;
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -1;
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	if (connect(s, (struct sockaddr *)&address, sizeof address)) {
		close(s);
		return -1;
	}
	return s;
}

static int send_request(int s, struct buffer *request, int netns)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec part = {request->data, request->length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (netns >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &netns, sizeof netns);
	}
	ssize_t sent = sendmsg(s, &message, MSG_NOSIGNAL);
	if (sent < 0)
		return -1;
	if (write_all(s, request->data + sent, request->length - (size_t)sent))
		return -1;
	return shutdown(s, SHUT_WR);
}

static void ask_agent(const struct hints *hints, struct buffer *stdin_copy)
{
	struct buffer request = {0}, answer = {0};
	int netns = -1;
	append(&request, "\0\0\0\0", 4);
	for (char **e = environ; *e; e++) {
		if (strncmp(*e, "CNI_", 4))
			continue;
		append(&request, *e, strlen(*e) + 1);
		if (!strncmp(*e, "CNI_NETNS=", 10) && (*e)[10])
			netns = open(*e + 10, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	}
	size_t length = request.length - 4;
	for (int i = 0; i < 4; i++)
		request.data[i] = (char)(length >> (24 - 8 * i));
	append(&request, stdin_copy->data, stdin_copy->length);
	/* Last: the other end wakes now, and finds all of it when it looks. */
	int s = connect_agent(hints);
	if (s < 0)
		return;
	if (send_request(s, &request, netns) || read_all(s, &answer) || !answer.length)
		return;
	write_all(1, answer.data + 1, answer.length - 1);
	_exit((unsigned char)answer.data[0]);
}

static void run_engine(char **argv, struct buffer *stdin_copy)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 32);
	if (length < 0)
		die("no agent answers, and /proc is not mounted");
	path[length] = 0;
	strcpy(strrchr(path, '/') + 1, "pycni-engine");
	int copy = memfd_create("stdin", 0);
	if (copy < 0 || write_all(copy, stdin_copy->data, stdin_copy->length) ||
	    lseek(copy, 0, SEEK_SET) || dup2(copy, 0) < 0)
		die("no agent answers, and the request can't be handed to the engine");
	argv[0] = path;
	execv(path, argv);
	die("no agent answers, and pycni-engine beside the plugin can't be started:"
	    " run install.sh again");
}

int main(int argc, char **argv)
{
	struct buffer input = {0};
	struct hints hints = {DEFAULT_RUN_DIR, DEFAULT_TIMEOUT_S};
	signal(SIGPIPE, SIG_IGN); /* an agent that dies is an error code, not our end */
	if (!getenv("CNI_COMMAND") && argc > 1)
		run_engine(argv, &input); /* a person asks for --help or --version */
	if (read_all(0, &input))
		die("standard input can't be read");
	read_hints(&input, &hints);
	ask_agent(&hints, &input);
	run_engine(argv, &input);
	return 1;
}
