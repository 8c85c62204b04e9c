/* Reading what the relay must know of a network's configuration; all else passes unread. */
#include <string.h>

#include "relay.h"

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

/* Read a text; empty when it is none, or too long to be one of these. */
static int read_text(const struct buffer *b, size_t i, char *out, size_t size)
{
	size_t end = b->data[i] == '"' ? skip_string(b, i) : 0;
	if (end && end <= b->length && end - i < size - 8 &&
	    decode(b->data + i + 1, b->data + end - 1, out, size))
		return 1;
	out[0] = 0;
	return 0;
}

static void read_state_dir(const struct buffer *b, size_t i, struct hints *hints)
{
	int is_text = read_text(b, i, hints->state_dir, sizeof hints->state_dir);
	int is_null = b->length - i >= 4 && !memcmp(b->data + i, "null", 4);
	hints->has_bad_state_dir = is_text ? hints->state_dir[0] != '/' : !is_null;
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

static void read_value(const struct buffer *b, size_t i, const char *key, struct hints *hints)
{
	if (!strcmp(key, "run_dir"))
		read_run_dir(b, i, hints);
	else if (!strcmp(key, "agent_timeout"))
		read_timeout(b, i, hints);
	else if (!strcmp(key, "state_dir"))
		read_state_dir(b, i, hints);
	else if (!strcmp(key, "datastore_type"))
		read_text(b, i, hints->datastore_type, sizeof hints->datastore_type);
	else if (!strcmp(key, "datastore"))
		read_text(b, i, hints->datastore, sizeof hints->datastore);
	else if (!strcmp(key, "name"))
		read_text(b, i, hints->name, sizeof hints->name);
	else if (!strcmp(key, "cniVersion"))
		read_text(b, i, hints->version, sizeof hints->version);
}

/* Read some keys at the top level; of a key that is given twice, the last one counts.  What is
 * wrong is as good as absent: whoever answers the request complains of it. */
void read_hints(const struct buffer *b, struct hints *hints)
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
			if (i < b->length)
				read_value(b, i, key, hints);
		}
	}
}
