// The values of `step` outside of training, for programs without immediates: WebGPU in browsers.
// Twin: StepParams::default in src/view.rs.
struct StepParams {
    step: u32,
    seed_lo: u32,
    seed_hi: u32,
    cursor: u32,
    lr: f32,
    correction1: f32,
    correction2: f32,
    sparsity_scale: f32,
    slot: u32,
    first_sample: u32,
}

const step = StepParams(0u, 0u, 0u, 0u, 0.0, 1.0, 1.0, 1.0, 0u, 0u);
