/* What the parts of the relay share: the request's input, and what is read of it. */
#include <stddef.h>

#define DEFAULT_RUN_DIR "/run/pycni"
#define DEFAULT_STATE_DIR "/var/lib/pycni"
#define DEFAULT_TIMEOUT_S 30

struct buffer {
	char *data;
	size_t length, size;
};

/* Texts are empty where they are absent. */
struct hints {
	char run_dir[4096], state_dir[4096], datastore[4096], datastore_type[64];
	char name[4096], version[64];
	long timeout;
	int has_bad_state_dir;
};

/* pycni.c */
void die(const char *message);
int write_all(int fd, const char *data, size_t length);

/* hints.c */
void read_hints(const struct buffer *b, struct hints *hints);

/* alone.c: answer a request that neither agent nor engine takes, if that can be answered. */
void answer_alone(const struct hints *hints);

/* sha256.c: the digest in hexadecimal, with a NUL. */
void sha256_hex(const char *data, size_t length, char out[65]);
