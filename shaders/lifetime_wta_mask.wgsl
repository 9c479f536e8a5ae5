//!include grid fours map key
// mask[n,h,w,c] = 1 for the `winners` samples n with the largest sums[n,c], else 0. Ties go to the
//   lowest n.
// A radix selection: four passes over the bytes of the keys. Further passes over the bytes of the
//   sample numbers follow; they count nothing if no tie has to be broken.
// Layouts: mask (N,H,W,C), sums (N,C).
// Workgroup: one channel. 64 invocations are enough because batches are small, and software
//   adapters pay for each invocation at a barrier.
// Grid: C workgroups of 64.
// Precondition: 1 <= winners <= N.
// Twin: LifetimeWtaMask in src/ops/mask/cpu.rs.
struct Params {
    n: u32,
    c: u32,
    area: u32,
    winners: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> mask: array<Map>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let c = flat_workgroup(group, groups);
    if c >= p.c {
        return;
    }
    // The smallest key that wins, byte by byte from the most significant.
    var digit = Digit(0u, p.winners, p.n);
    var cut = 0u;
    clear_digits(local, 64u);
    for (var shift = 32u; shift > 0u; shift -= 8u) {
        for (var n = local; n < p.n; n += 64u) {
            let key = key_of(sums[n * p.c + c]);
            if high_bits(key, shift) == high_bits(cut, shift) {
                count_digit(key >> (shift - 8u));
            }
        }
        digit = choose_digit(local, digit.wanted);
        cut |= digit.value << (shift - 8u);
    }
    // Among samples with that key, the lowest rank N - 1 - n that wins.
    var lowest = 0u;
    let tied = digit.wanted < digit.count;
    for (var shift = whole_byte_bits(p.n - 1u); shift > 0u; shift -= 8u) {
        for (var n = local; tied && n < p.n; n += 64u) {
            let rank = p.n - 1u - n;
            if key_of(sums[n * p.c + c]) == cut
                && high_bits(rank, shift) == high_bits(lowest, shift) {
                count_digit(rank >> (shift - 8u));
            }
        }
        digit = choose_digit(local, digit.wanted);
        lowest |= digit.value << (shift - 8u);
    }
    for (var i = local; i < p.n * p.area; i += 64u) {
        let n = i / p.area;
        let key = key_of(sums[n * p.c + c]);
        let wins = key > cut || (key == cut && p.n - 1u - n >= lowest);
        mask[i * p.c + c] = Map(select(0.0, 1.0, wins));
    }
}
