//!include grid fours map key rank batch_top_k
// A pass over ranks of a batch selection, after those over keys: how often each value of a byte
// occurs among the ranks of the keys that equal the last one kept. It counts nothing where no tie
// has to be cut. x (N,H,W,C), work (passes, RECORD).
// Every workgroup first reads the last pass's digit from its counts, the same answer everywhere;
// the first notes it for the next pass.
// One invocation: vec4s first, first + stride, ... Grid: stride / 256 workgroups of 256. Counts are
// integers: their order is of no matter.
// Precondition: all passes over keys come before. Twin: BatchTopKMask in src/reference/mask.rs.
struct Params {
    len: u32,
    c: u32,
    area: u32,
    number: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> work: array<atomic<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = flat_invocation(group, groups, local, 256u);
    let digit = found_digit(local, p.number - 1u);
    let bound = bound_after(p.number - 1u, digit.value, p.len);
    if first == 0u {
        note(p.number, bound, digit.wanted);
    }
    // The counts stay 0, of which the next pass finds the digit 0, and ends here too.
    if digit.wanted >= digit.count {
        return;
    }
    clear_digits(local, 256u);
    let shift = shift_of(p.number, p.len);
    let known = above(bound.lowest, shift + 8u);
    for (var i = first; i < (p.len + 3u) / 4u; i += p.stride) {
        let v = map4(x[i]);
        for (var lane = 0u; lane < 4u; lane++) {
            let element = i * 4u + lane;
            if element < p.len && key_of(v[lane]) == bound.cut {
                let rank = rank_of(element, p.len, p.c, p.area);
                if above(rank, shift + 8u) == known {
                    count_digit(rank >> shift);
                }
            }
        }
    }
    workgroupBarrier();
    add_counts(local, p.number);
}
