//!include grid fours map key rank batch_top_k
// The last pass of a batch selection: mask = 1 for the keys above the last one kept and for those
// of its equals that rank no lower, else 0. threshold[0] follows the smallest selected value above
// 0: it takes that value while it is 0, else moves to it by `rate`. x and mask (N,H,W,C), work
// (passes, RECORD) after all of its `passes`. One invocation: vec4s first, first + stride, ...
// Grid: stride / 256 workgroups of 256. Twin: BatchTopKMask in src/reference/mask.rs.
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
    let digit = found_digit(local, p.passes - 1u);
    let bound = bound_after(p.passes - 1u, digit.value, p.len);
    for (var i = first; i < (p.len + 3u) / 4u; i += p.stride) {
        let v = map4(x[i]);
        var kept = vec4<f32>(0.0);
        for (var lane = 0u; lane < 4u; lane++) {
            if i * 4u + lane < p.len && key_of(v[lane]) >= bound.cut {
                kept[lane] = 1.0;
            }
        }
        // A loop of its own, which nobody enters where no tie is cut: ranks cost divisions.
        for (var lane = 0u; bound.lowest > 0u && lane < 4u; lane++) {
            if key_of(v[lane]) == bound.cut && rank_of(i * 4u + lane, p.len, p.c, p.area) < bound.lowest {
                kept[lane] = 0.0;
            }
        }
        mask[i] = to_map4(kept);
    }
    if first == 0u {
        // All that is above 0 is selected if the last one kept is not, else that one is the
        // smallest. NaN, whose key is NONE, is no value.
        let least = select(atomicLoad(&work[SMALLEST]), bound.cut, bound.cut > key_of(0.0));
        if least != NONE {
            let value = float_of(least);
            let old = threshold[0];
            threshold[0] = select(old + p.rate * (value - old), value, old == 0.0);
        }
    }
}
