/* Training kernels for one core: batch normalisation with activation, and the depthwise
 * convolution fused with the normalisation before and after it.
 *
 * Tensors are NHWC bfloat16; per-channel vectors, weights ([K*K][C]) and sums are float32 or
 * double. Written with the compiler's vector extension, 16 channels at a time, so that one source
 * serves AVX-512, AVX2 and NEON.
 *
 * Why fused: the expanded tensors of an MBConv are the largest ones, and passes over them, not
 * multiplications, decide the speed. The input's normalisation and activation are computed while a
 * plane is loaded, and the output's sums while it is stored.
 *
 * Activation codes: 0 none, 1 ReLU, 2 ReLU6.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
#define BLOCK_ROWS 128
typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));
typedef uint32_t U __attribute__((vector_size(4 * LANES)));
typedef uint16_t H __attribute__((vector_size(2 * LANES)));
typedef uint16_t bf16;
#define UNROLL _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline))

INLINE V zero(void) { return (V){0}; }

/* The first n lanes of 16 bfloat16 values, the others zero. */
INLINE V load(const bf16 *p, int n) {
  H h = {0};
  if (n >= LANES)
    memcpy(&h, p, sizeof h);
  else {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    h = (H)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
#else
    memcpy(&h, p, (size_t)n * 2);
#endif
  }
  return (V)(__builtin_convertvector(h, U) << 16);
}

INLINE void store(bf16 *p, int n, V v) {
#ifdef __AVX512BF16__
  H h = (H)_mm512_cvtneps_pbh((__m512)v);
#else /* round to nearest, ties to even; a NaN stays a NaN because its payload is kept */
  U u = (U)v;
  H h = __builtin_convertvector((u + 0x7fffu + ((u >> 16) & 1u)) >> 16, H);
#endif
  if (n >= LANES)
    memcpy(p, &h, sizeof h);
  else
    memcpy(p, &h, (size_t)n * 2);
}

INLINE V loadf(const float *p, int n) {
  V v = {0};
  if (n >= LANES)
    memcpy(&v, p, sizeof v);
  else
    memcpy(&v, p, (size_t)n * 4);
  return v;
}

/* An activation is a clamp: lower and upper bound, infinite where there is none. */
typedef struct {
  V low, high;
} Bounds;

INLINE Bounds bounds(int act) {
  const float infinity = __builtin_inff();
  return (Bounds){zero() + (act > 0 ? 0.f : -infinity), zero() + (act == 2 ? 6.f : infinity)};
}

INLINE V activate(V v, Bounds b) {
#ifdef __AVX512F__
  return (V)_mm512_min_ps(_mm512_max_ps((__m512)v, (__m512)b.low), (__m512)b.high);
#else
  const I above = v > b.low;
  v = (V)(((I)v & above) | ((I)b.low & ~above));
  const I below = v < b.high;
  return (V)(((I)v & below) | ((I)b.high & ~below));
#endif
}

/* d where the activation of the value v (before or after activation) passes gradient. */
INLINE V gate(V v, V d, Bounds b) {
#ifdef __AVX512F__
  const __mmask16 m = _mm512_cmp_ps_mask((__m512)v, (__m512)b.low, _CMP_GT_OQ) &
                      _mm512_cmp_ps_mask((__m512)v, (__m512)b.high, _CMP_LT_OQ);
  return (V)_mm512_maskz_mov_ps(m, (__m512)d);
#else
  return (V)((I)d & (v > b.low) & (v < b.high));
#endif
}

INLINE void add_sums(double *sum, V v, int n) {
  for (int i = 0; i < n && i < LANES; i++) sum[i] += v[i];
}

/* ------------------------------------------------------------------ batch normalisation */

/* sum[C], square[C]: sums of z and z*z over R rows. */
void edgeofa_moments(const bf16 *z, long R, int C, double *sum, double *square) {
  memset(sum, 0, sizeof(double) * (size_t)C);
  memset(square, 0, sizeof(double) * (size_t)C);
  for (long r0 = 0; r0 < R; r0 += BLOCK_ROWS) {
    const long r1 = r0 + BLOCK_ROWS < R ? r0 + BLOCK_ROWS : R;
    for (int c = 0; c < C; c += LANES) {
      const int n = C - c;
      V s0 = zero(), q0 = s0, s1 = s0, q1 = s0;
      long r = r0;
      for (; r + 1 < r1; r += 2) {
        V a = load(z + r * C + c, n), b = load(z + (r + 1) * C + c, n);
        s0 += a, q0 += a * a, s1 += b, q1 += b * b;
      }
      if (r < r1) {
        V a = load(z + r * C + c, n);
        s0 += a, q0 += a * a;
      }
      add_sums(sum + c, s0 + s1, n);
      add_sums(square + c, q0 + q1, n);
    }
  }
}

/* y = act(z * scale + offset) [+ residual] */
void edgeofa_norm_apply(const bf16 *z, const float *scale, const float *offset,
                        const bf16 *residual, bf16 *y, long R, int C, int act) {
  const Bounds clamp = bounds(act);
  for (long r0 = 0; r0 < R; r0 += 8) {
    const long r1 = r0 + 8 < R ? r0 + 8 : R;
    for (int c = 0; c < C; c += LANES) {
      const int n = C - c;
      const V a = loadf(scale + c, n), b = loadf(offset + c, n);
      for (long r = r0; r < r1; r++) {
        V v = activate(load(z + r * C + c, n) * a + b, clamp);
        if (residual) v += load(residual + r * C + c, n);
        store(y + r * C + c, n, v);
      }
    }
  }
}

/* sum[C], product[C]: sums of d and d*z, d being dy gated by the activation. */
void edgeofa_norm_reduce(const bf16 *z, const bf16 *dy, const float *scale, const float *offset,
                         double *sum, double *product, long R, int C, int act) {
  const Bounds clamp = bounds(act);
  memset(sum, 0, sizeof(double) * (size_t)C);
  memset(product, 0, sizeof(double) * (size_t)C);
  for (long r0 = 0; r0 < R; r0 += BLOCK_ROWS) {
    const long r1 = r0 + BLOCK_ROWS < R ? r0 + BLOCK_ROWS : R;
    for (int c = 0; c < C; c += LANES) {
      const int n = C - c;
      const V a = loadf(scale + c, n), b = loadf(offset + c, n);
      V s = zero(), q = s;
      for (long r = r0; r < r1; r++) {
        V v = load(z + r * C + c, n), d = gate(v * a + b, load(dy + r * C + c, n), clamp);
        s += d, q += d * v;
      }
      add_sums(sum + c, s, n);
      add_sums(product + c, q, n);
    }
  }
}

/* dz = scale * d + k2 * z + k3, the gradient of batch normalisation with batch statistics. */
void edgeofa_norm_grad(const bf16 *z, const bf16 *dy, const float *scale, const float *offset,
                       const float *k2, const float *k3, bf16 *dz, long R, int C, int act) {
  const Bounds clamp = bounds(act);
  for (long r0 = 0; r0 < R; r0 += 8) {
    const long r1 = r0 + 8 < R ? r0 + 8 : R;
    for (int c = 0; c < C; c += LANES) {
      const int n = C - c;
      const V a = loadf(scale + c, n), b = loadf(offset + c, n);
      const V p = loadf(k2 + c, n), q = loadf(k3 + c, n);
      for (long r = r0; r < r1; r++) {
        V v = load(z + r * C + c, n), d = gate(v * a + b, load(dy + r * C + c, n), clamp);
        store(dz + r * C + c, n, d * a + (v * p + q));
      }
    }
  }
}

/* ------------------------------------------------------------------ depthwise convolution */

typedef struct {
  int N, H, W, C, HO, WO;
  int before;           /* zero rows and columns before the image */
  int act_in, act_out;  /* act_in: -1 for no normalisation before the convolution */
} Shape;

/* One image's 16 channels, normalised and activated, into a zero-bordered float plane. */
INLINE void load_plane(const bf16 *z, const Shape s, int c, const float *scale,
                       const float *offset, float *plane, int WP) {
  const int n = s.C - c;
  const Bounds clamp = bounds(s.act_in);
  V a = zero() + 1.f, b = zero();
  if (s.act_in >= 0) a = loadf(scale + c, n), b = loadf(offset + c, n);
  for (int h = 0; h < s.H; h++) {
    float *row = plane + ((size_t)(h + s.before) * WP + s.before) * LANES;
    const bf16 *from = z + (size_t)h * s.W * s.C + c;
    for (int w = 0; w < s.W; w++) {
      const V v = load(from + (size_t)w * s.C, n);
      *(V *)(row + (size_t)w * LANES) = activate(v * a + b, clamp);
    }
  }
}

INLINE int max_(int a, int b) { return a > b ? a : b; }

INLINE int forward_(const bf16 *z, const float *scale, const float *offset, const float *weight,
                    bf16 *y, double *sum, double *square, const Shape s, const int K,
                    const int S) {
  const int WP = max_(s.W + s.before, (s.WO - 1) * S + K) + K + 2;
  const int HP = max_(s.H + s.before, (s.HO - 1) * S + K) + 1;
  float *plane = aligned_alloc(64, (size_t)HP * WP * LANES * 4);
  if (!plane) return 1;
  memset(plane, 0, (size_t)HP * WP * LANES * 4);
  memset(sum, 0, sizeof(double) * (size_t)s.C);
  memset(square, 0, sizeof(double) * (size_t)s.C);
  for (int i = 0; i < s.N; i++)
    for (int c = 0; c < s.C; c += LANES) {
      const int n = s.C - c;
      V w[K * K];
      for (int k = 0; k < K * K; k++) w[k] = loadf(weight + (size_t)k * s.C + c, n);
      load_plane(z + (size_t)i * s.H * s.W * s.C, s, c, scale, offset, plane, WP);
      V total = zero(), squares = total;
      for (int h = 0; h < s.HO; h++) {
        bf16 *out = y + ((size_t)i * s.HO + h) * s.WO * s.C + c;
        const float *row = plane + (size_t)h * S * WP * LANES;
        int x = 0;
        for (; x + 2 <= s.WO; x += 2) {
          V a = zero(), b = a;
          const float *p = row + (size_t)x * S * LANES;
          UNROLL for (int u = 0; u < K; u++)
            UNROLL for (int v = 0; v < K; v++) {
              a += w[u * K + v] * *(const V *)(p + ((size_t)u * WP + v) * LANES);
              b += w[u * K + v] * *(const V *)(p + ((size_t)u * WP + v + S) * LANES);
            }
          store(out + (size_t)x * s.C, n, a);
          store(out + (size_t)(x + 1) * s.C, n, b);
          total += a + b, squares += a * a + b * b;
        }
        if (x < s.WO) {
          V a = zero();
          const float *p = row + (size_t)x * S * LANES;
          UNROLL for (int u = 0; u < K; u++)
            UNROLL for (int v = 0; v < K; v++)
              a += w[u * K + v] * *(const V *)(p + ((size_t)u * WP + v) * LANES);
          store(out + (size_t)x * s.C, n, a);
          total += a, squares += a * a;
        }
      }
      add_sums(sum + c, total, n);
      add_sums(square + c, squares, n);
    }
  free(plane);
  return 0;
}

/* The gradients of two neighbours in a row, of a stride 2 convolution: only every second tap meets
 * an output. (h, x): place in the padded image; PH: parity of h. */
INLINE void gather2(const float *dplane, int h, int x, int border, int GW, const V *w, const int K,
                    const int PH, V *d0, V *d1) {
  const float *p = dplane + ((size_t)((h - PH) / 2 + border) * GW + border) * LANES;
  for (int side = 0; side < 2; side++) {
    V d = zero();
    const int column = (x + side) / 2;
    if ((x + side) & 1) {
      UNROLL for (int u = PH; u < K; u += 2)
        UNROLL for (int v = 1; v < K; v += 2)
          d += w[u * K + v] *
               *(const V *)(p + ((column - v / 2) - (ptrdiff_t)(u / 2) * GW) * LANES);
    } else {
      UNROLL for (int u = PH; u < K; u += 2)
        UNROLL for (int v = 0; v < K; v += 2)
          d += w[u * K + v] *
               *(const V *)(p + ((column - v / 2) - (ptrdiff_t)(u / 2) * GW) * LANES);
    }
    if (side) *d1 = d;
    else *d0 = d;
  }
}

/* Gradients of y = depthwise(act_in(z * scale + offset)), given dy after the output's own
 * normalisation and activation: d = scale2 * gate(dy) + k2 * y + k3 is formed while loading. */
INLINE int backward_(const bf16 *z, const float *scale, const float *offset, const float *weight,
                     const bf16 *y, const bf16 *dy, const float *scale2, const float *offset2,
                     const float *k2, const float *k3, bf16 *dz, double *dweight, double *sum,
                     double *product, const Shape s, const int K, const int S) {
  const Bounds clamp_in = bounds(s.act_in), clamp_out = bounds(s.act_out);
  const int WP = max_(s.W + s.before, (s.WO - 1) * S + K) + K + 2;
  const int HP = max_(s.H + s.before, (s.HO - 1) * S + K) + 1;
  /* dz gathers from a plane of d with this many zeros before it */
  const int border = S == 1 ? K - 1 - s.before : K / 2 + 1;
  const int GW = max_(s.WO + border, s.W + K) + K + 2, GH = max_(s.HO + border, s.H + K) + 2;
  const size_t plane_bytes = (size_t)HP * WP * LANES * 4, d_bytes = (size_t)GH * GW * LANES * 4;
  float *plane = aligned_alloc(64, plane_bytes), *dplane = aligned_alloc(64, d_bytes);
  if (!plane || !dplane) {
    free(plane), free(dplane);
    return 1;
  }
  memset(plane, 0, plane_bytes), memset(dplane, 0, d_bytes);
  memset(dweight, 0, sizeof(double) * (size_t)K * K * s.C);
  memset(sum, 0, sizeof(double) * (size_t)s.C);
  memset(product, 0, sizeof(double) * (size_t)s.C);
  for (int i = 0; i < s.N; i++)
    for (int c = 0; c < s.C; c += LANES) {
      const int n = s.C - c;
      V w[K * K], dw[K * K];
      for (int k = 0; k < K * K; k++) w[k] = loadf(weight + (size_t)k * s.C + c, n), dw[k] = zero();
      const bf16 *image = z + (size_t)i * s.H * s.W * s.C;
      load_plane(image, s, c, scale, offset, plane, WP);
      const V a2 = loadf(scale2 + c, n), b2 = loadf(offset2 + c, n);
      const V p2 = loadf(k2 + c, n), q2 = loadf(k3 + c, n);
      for (int h = 0; h < s.HO; h++) {
        const size_t at = ((size_t)i * s.HO + h) * s.WO * s.C + c;
        float *drow = dplane + ((size_t)(h + border) * GW + border) * LANES;
        const float *row = plane + (size_t)h * S * WP * LANES;
        for (int x = 0; x < s.WO; x++) {
          const V v = load(y + at + (size_t)x * s.C, n);
          const V g = gate(v * a2 + b2, load(dy + at + (size_t)x * s.C, n), clamp_out);
          const V d = g * a2 + (v * p2 + q2);
          *(V *)(drow + (size_t)x * LANES) = d;
        }
        if (K < 5) {
          for (int x = 0; x < s.WO; x++) {
            const V d = *(V *)(drow + (size_t)x * LANES);
            const float *p = row + (size_t)x * S * LANES;
            UNROLL for (int u = 0; u < K; u++)
              UNROLL for (int v = 0; v < K; v++)
                dw[u * K + v] += d * *(const V *)(p + ((size_t)u * WP + v) * LANES);
          }
        } else { /* one kernel row at a time: more accumulators would not fit the registers */
          UNROLL for (int u = 0; u < K; u++) {
            V acc[K];
            UNROLL for (int v = 0; v < K; v++) acc[v] = dw[u * K + v];
            for (int x = 0; x < s.WO; x++) {
              const V d = *(V *)(drow + (size_t)x * LANES);
              const float *p = row + ((size_t)x * S + (size_t)u * WP) * LANES;
              UNROLL for (int v = 0; v < K; v++) acc[v] += d * *(const V *)(p + (size_t)v * LANES);
            }
            UNROLL for (int v = 0; v < K; v++) dw[u * K + v] = acc[v];
          }
        }
      }
      for (int k = 0; k < K * K; k++) add_sums(dweight + (size_t)k * s.C + c, dw[k], n);
      V total = zero(), products = total;
      bf16 *out = dz + (size_t)i * s.H * s.W * s.C + c;
      for (int h = 0; h < s.H; h++) {
        const float *row = plane + ((size_t)(h + s.before) * WP + s.before) * LANES;
        for (int x = 0; x < s.W; x += 2) {
          V d0 = zero(), d1 = d0;
          if (S == 1) {
            const float *p = dplane + ((size_t)h * GW + x) * LANES;
            UNROLL for (int u = 0; u < K; u++)
              UNROLL for (int v = 0; v < K; v++) {
                const V tap = w[K * K - 1 - u * K - v];
                d0 += tap * *(const V *)(p + ((size_t)u * GW + v) * LANES);
                d1 += tap * *(const V *)(p + ((size_t)u * GW + v + 1) * LANES);
              }
          } else if (((h + s.before) & 1) == 0) {
            gather2(dplane, h + s.before, x + s.before, border, GW, w, K, 0, &d0, &d1);
          } else {
            gather2(dplane, h + s.before, x + s.before, border, GW, w, K, 1, &d0, &d1);
          }
          for (int k = 0; k < 2 && x + k < s.W; k++) {
            V d = k ? d1 : d0;
            const size_t pixel = (size_t)h * s.W + x + k;
            if (s.act_in >= 0) {
              d = gate(*(const V *)(row + (size_t)(x + k) * LANES), d, clamp_in);
              total += d, products += d * load(image + pixel * s.C + c, n);
            }
            store(out + pixel * s.C, n, d);
          }
        }
      }
      if (s.act_in >= 0) {
        add_sums(sum + c, total, n);
        add_sums(product + c, products, n);
      }
    }
  free(plane), free(dplane);
  return 0;
}

#define KERNELS(call)                      \
  if (S == 1 && K == 3) return call(3, 1); \
  if (S == 1 && K == 5) return call(5, 1); \
  if (S == 1 && K == 7) return call(7, 1); \
  if (S == 2 && K == 3) return call(3, 2); \
  if (S == 2 && K == 5) return call(5, 2); \
  if (S == 2 && K == 7) return call(7, 2); \
  return 2;

/* Both return 0, or 1 when memory is short, or 2 for a kernel or stride that is not built. */
int edgeofa_depthwise(const bf16 *z, const float *scale, const float *offset, const float *weight,
                      bf16 *y, double *sum, double *square, int N, int Hh, int W, int C, int HO,
                      int WO, int before, int K, int S, int act_in) {
  const Shape s = {N, Hh, W, C, HO, WO, before, act_in, 0};
#define CALL(k, st) forward_(z, scale, offset, weight, y, sum, square, s, k, st)
  KERNELS(CALL)
#undef CALL
}

int edgeofa_depthwise_grad(const bf16 *z, const float *scale, const float *offset,
                           const float *weight, const bf16 *y, const bf16 *dy,
                           const float *scale2, const float *offset2, const float *k2,
                           const float *k3, bf16 *dz, double *dweight, double *sum,
                           double *product, int N, int Hh, int W, int C, int HO, int WO,
                           int before, int K, int S, int act_in, int act_out) {
  const Shape s = {N, Hh, W, C, HO, WO, before, act_in, act_out};
#define CALL(k, st)                                                                        \
  backward_(z, scale, offset, weight, y, dy, scale2, offset2, k2, k3, dz, dweight, sum, product, \
            s, k, st)
  KERNELS(CALL)
#undef CALL
}
