/* The stable C API of a compiled network.
 *
 * Each network is one C file, compiled from an int8 graph. With the default prefix it defines the
 * functions below and `edgeofa_network_description`; its generated header `edgeofa_network.h` holds
 * the sizes as constants:
 *
 *   EDGEOFA_INPUT_BYTES, EDGEOFA_OUTPUT_BYTES   the network's input (HWC, int8) and output
 *   EDGEOFA_ARENA_BYTES                         working memory: activations and scratch
 *   EDGEOFA_WEIGHT_BYTES                        constants in flash
 *   EDGEOFA_LAYERS                              layers that edgeofa_run executes, in order
 *
 * A network compiled with another prefix P defines P_init and so on, and P_network_description, so
 * that several live in one image. With -DEDGEOFA_SHARED_ARENA=NAME a network works in the array
 * NAME (uint8_t, 16-byte aligned, of at least its EDGEOFA_ARENA_BYTES, defined elsewhere) instead
 * of its own; networks that share one lose their input and output when another one runs.
 *
 * No heap, no state outside the arena, no calls but to the C library's memcpy, memmove and memset.
 */
#ifndef EDGEOFA_FIRMWARE_H
#define EDGEOFA_FIRMWARE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEOFA_DIGEST_CHARS 64

/* Everything about one network, for firmware that holds several. */
typedef struct edgeofa_network {
    const char *digest; /* SHA-256 of the network in hexadecimal, EDGEOFA_DIGEST_CHARS and a NUL */
    int (*init)(void);
    int (*run)(void);
    int8_t *(*input)(void);
    const int8_t *(*output)(void);
    uint8_t *(*arena)(void);
    uint32_t input_bytes;
    uint32_t output_bytes;
    uint32_t arena_bytes;
    uint32_t weight_bytes;
    uint32_t layers;
} edgeofa_network;

/* Prepares the network; 0, or negative when the network cannot run. Call once before all else. */
int edgeofa_init(void);

/* One inference from edgeofa_input() to edgeofa_output(); 0 on success. It overwrites the input. */
int edgeofa_run(void);

/* Where the next input goes: EDGEOFA_INPUT_BYTES values, height, width, channels. */
int8_t *edgeofa_input(void);

/* The last output: EDGEOFA_OUTPUT_BYTES values, valid until the next input is written. */
const int8_t *edgeofa_output(void);

/* The working memory, EDGEOFA_ARENA_BYTES. */
uint8_t *edgeofa_arena(void);

extern const char edgeofa_digest[EDGEOFA_DIGEST_CHARS + 1];
extern const edgeofa_network edgeofa_network_description;

/* Called around each layer when the network is compiled with -DEDGEOFA_LAYER_HOOKS; whoever
 * compiles it so defines them (the same for all networks of an image). */
void edgeofa_layer_begin(int index);
void edgeofa_layer_end(int index);

#ifdef __cplusplus
}
#endif
#endif
