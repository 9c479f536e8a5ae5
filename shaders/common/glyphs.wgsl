// The letters A to Z of seven rows by five columns of dots, and a blank. Bit 5 * row + column of
// the two words is that dot. Twin: src/raster/glyphs.rs.
const GLYPHS = array<vec2<u32>, 27>(
    vec2<u32>(0x631fc62eu, 4u), vec2<u32>(0xe317c62fu, 3u), vec2<u32>(0xa210862eu, 3u),
    vec2<u32>(0xe318c62fu, 3u), vec2<u32>(0xc217843fu, 7u), vec2<u32>(0x4217843fu, 0u),
    vec2<u32>(0xa31e862eu, 7u), vec2<u32>(0x631fc631u, 4u), vec2<u32>(0x8842108eu, 3u),
    vec2<u32>(0x9284211cu, 1u), vec2<u32>(0x52519531u, 4u), vec2<u32>(0xc2108421u, 7u),
    vec2<u32>(0x631ad771u, 4u), vec2<u32>(0x631cd671u, 4u), vec2<u32>(0xa318c62eu, 3u),
    vec2<u32>(0x4217c62fu, 0u), vec2<u32>(0x9358c62eu, 5u), vec2<u32>(0x5257c62fu, 4u),
    vec2<u32>(0xe107043eu, 3u), vec2<u32>(0x0842109fu, 1u), vec2<u32>(0xa318c631u, 3u),
    vec2<u32>(0x1518c631u, 1u), vec2<u32>(0x775ac631u, 4u), vec2<u32>(0x62a22a31u, 4u),
    vec2<u32>(0x08422a31u, 1u), vec2<u32>(0xc222221fu, 7u), vec2<u32>(0x00000000u, 0u),
);
