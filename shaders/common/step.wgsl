// Values that change from step to step. Twin: StepParams in src/view.rs.
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
    pad0: u32,
    pad1: u32,
}

// The commands of a dispatch contain them, so that no buffer has to be written for a step.
var<immediate> step: StepParams;
