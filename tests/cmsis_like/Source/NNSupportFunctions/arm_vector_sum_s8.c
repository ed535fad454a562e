#include "arm_nnfunctions.h"

arm_cmsis_nn_status arm_vector_sum_s8(int32_t *vector_sum_buf, const int32_t vector_cols,
                                      const int32_t vector_rows, const int8_t *vector_data,
                                      const int32_t lhs_offset, const int32_t rhs_offset,
                                      const int32_t *bias_data) {
  (void)rhs_offset;
  for (int32_t k = 0; k < vector_rows; k++) {
    vector_sum_buf[k] = bias_data[k];
    for (int32_t i = 0; i < vector_cols; i++)
      vector_sum_buf[k] += lhs_offset * vector_data[k * vector_cols + i];
  }
  return ARM_CMSIS_NN_SUCCESS;
}
