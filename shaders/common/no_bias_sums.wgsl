// Instead of bias_sums, for kernels that do not compute the bias gradient.

const SUMS: u32 = 0u;

fn store_filter_sums(added: vec4<f32>, number: u32, first: u32, local: u32) {}

fn store_row_sums(added: vec4<f32>, number: u32, first: u32, rows: Rows, local: u32) {}
