//!include grid fours map key rank
// mask = 1 for the k largest x of the whole batch by signed value, ties to the lowest NCHW index
// (sample-major), else 0. threshold[0] follows the smallest selected value above 0: it takes that
// value while it is 0, else moves to it by `rate`. x and mask (N,H,W,C).
// A radix selection: four passes over the bytes of the keys, then, only where a tie has to be cut,
// over those of the NCHW index.
// One workgroup does it all. Grid: 1 workgroup of 256. Precondition: k <= N * C * H * W. Twin:
// BatchTopKMask in src/reference/mask.rs.
struct Params {
    len: u32,
    c: u32,
    area: u32,
    k: u32,
    rate: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> threshold: array<f32>;
@group(0) @binding(3) var<storage, read_write> mask: array<Map4>;

var<workgroup> smallest: atomic<u32>;

const NONE = 0xffffffffu;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    let vectors = (p.len + 3u) / 4u;
    // The key of the last one kept, byte by byte.
    var digit = Digit(0u, p.k, p.len);
    var cut = 0u;
    for (var shift = 32u; shift > 0u; shift -= 8u) {
        clear_digits(local, 256u);
        for (var i = local; i < vectors; i += 256u) {
            let v = map4(x[i]);
            for (var lane = 0u; lane < 4u; lane++) {
                let key = key_of(v[lane]);
                if i * 4u + lane < p.len && above(key, shift) == above(cut, shift) {
                    count_digit(key >> (shift - 8u));
                }
            }
        }
        digit = choose_digit(local, digit.wanted);
        cut |= digit.value << (shift - 8u);
    }
    // Among equal keys, the rank of the last one kept.
    var lowest = 0u;
    if digit.wanted < digit.count {
        for (var shift = bits_of(p.len - 1u); shift > 0u; shift -= 8u) {
            clear_digits(local, 256u);
            for (var i = local; i < vectors; i += 256u) {
                let v = map4(x[i]);
                for (var lane = 0u; lane < 4u; lane++) {
                    if i * 4u + lane < p.len && key_of(v[lane]) == cut {
                        let rank = rank_of(i * 4u + lane, p.len, p.c, p.area);
                        if above(rank, shift) == above(lowest, shift) {
                            count_digit(rank >> (shift - 8u));
                        }
                    }
                }
            }
            digit = choose_digit(local, digit.wanted);
            lowest |= digit.value << (shift - 8u);
        }
    }
    if local == 0u {
        atomicStore(&smallest, NONE);
    }
    workgroupBarrier();
    // NONE is also NaN's key, which is never below itself.
    var least = NONE;
    for (var i = local; i < vectors; i += 256u) {
        let v = map4(x[i]);
        var kept = vec4<f32>(0.0);
        for (var lane = 0u; lane < 4u; lane++) {
            let element = i * 4u + lane;
            let key = key_of(v[lane]);
            if element < p.len && (key > cut || (key == cut && rank_of(element, p.len, p.c, p.area) >= lowest)) {
                kept[lane] = 1.0;
                if key > key_of(0.0) {
                    least = min(least, key);
                }
            }
        }
        mask[i] = to_map4(kept);
    }
    atomicMin(&smallest, least);
    workgroupBarrier();
    if local == 0u && atomicLoad(&smallest) != NONE {
        let value = float_of(atomicLoad(&smallest));
        let old = threshold[0];
        threshold[0] = select(old + p.rate * (value - old), value, old == 0.0);
    }
}
