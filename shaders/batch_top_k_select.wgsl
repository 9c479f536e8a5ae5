//!include grid fours map lane key rank batch_top_k
// The last pass of a batch-wide top-k selection: mask = 1 for the keys above the smallest key kept,
//   and for keys equal to it whose rank is at least the lowest rank kept, else 0.
// threshold[0] tracks the smallest selected value above 0: it takes that value while it is 0
//   (unset), else it moves towards it by `rate`.
// Layouts: x and mask (N,H,W,C), threshold (1), work (passes, RECORD), see common/batch_top_k.wgsl.
// Invocation: vec4s first, first + stride, ...
// Grid: stride / 256 workgroups of 256.
// Precondition: all `passes` counting passes have run.
// Twin: BatchTopKMask in src/ops/mask/cpu.rs.
struct Params {
    len: u32,
    c: u32,
    area: u32,
    passes: u32,
    stride: u32,
    rate: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> work: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> threshold: array<f32>;
@group(0) @binding(4) var<storage, read_write> mask: array<Map4>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = flat_invocation(group, groups, local, 256u);
    let digit = read_digit(local, p.passes - 1u);
    let bound = bound_after(p.passes - 1u, digit.value, p.len);
    for (var i = first; i < (p.len + 3u) / 4u; i += p.stride) {
        let v = map4(x[i]);
        var kept = vec4<f32>(0.0);
        for (var lane = 0u; lane < 4u; lane++) {
            if i * 4u + lane < p.len && key_of(v[lane]) >= bound.cut {
                kept = select(kept, vec4<f32>(1.0), is_lane(lane));
            }
        }
        // A separate loop, skipped if no tie is broken: computing ranks takes divisions.
        for (var lane = 0u; bound.lowest > 0u && lane < 4u; lane++) {
            if key_of(v[lane]) == bound.cut
                && rank_of(i * 4u + lane, p.len, p.c, p.area) < bound.lowest {
                kept = select(kept, vec4<f32>(0.0), is_lane(lane));
            }
        }
        mask[i] = to_map4(kept);
    }
    if first == 0u {
        // If the smallest key kept is above 0, it is the smallest selected value above 0. If not,
        // every value above 0 is selected, and the first pass has found their minimum. A NaN (key
        // NONE) does not change the threshold.
        let min_key = select(atomicLoad(&work[SMALLEST]), bound.cut, bound.cut > key_of(0.0));
        if min_key != NONE {
            let value = float_of(min_key);
            let old = threshold[0];
            threshold[0] = select(old + p.rate * (value - old), value, old == 0.0);
        }
    }
}
