@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> statistics: array<f32>; // [groups, chunks, (mean, squared deviations)]
@group(0) @binding(2) var<storage, read_write> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> sizes: Sizes;

struct Sizes {
    groups_all: u32, // of all pictures
    groups: u32, // of one picture
    channels: u32, // of one group
    area: u32,
    chunks: u32, // of one group
    fold_width: u32,
    epsilon: f32,
}

const SILU = {{ SILU }};
const CHUNK = 16384u;

// One workgroup normalises one chunk of one group. Each invocation first joins the statistics of all of the group's
// chunks, in order, by the pairwise formula that takes no difference of large squares.

@compute @workgroup_size(256, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let index = group.z * sizes.fold_width + group.y;
    if (index >= sizes.groups_all) {
        return;
    }
    let size = sizes.channels * sizes.area;
    var count = 0.0;
    var mean = 0.0;
    var spread = 0.0;
    for (var chunk = 0u; chunk < sizes.chunks; chunk++) {
        let other = f32(min(CHUNK, size - chunk * CHUNK));
        let away = statistics[(index * sizes.chunks + chunk) * 2u] - mean;
        let share = other / (count + other);
        spread += statistics[(index * sizes.chunks + chunk) * 2u + 1u] + away * away * count * share;
        mean += away * share;
        count += other;
    }
    let scale = 1.0 / sqrt(spread / count + sizes.epsilon);

    let first = group.x * CHUNK;
    let end = min(size, first + CHUNK);
    for (var i = first + local.x; i < end; i += 256u) {
        let channel = index % sizes.groups * sizes.channels + i / sizes.area;
        var value = (x[index * size + i] - mean) * (weight[channel] * scale) + bias[channel];
        if (SILU) {
            // Below -80 the result is as good as zero, and the exponential would soon be infinite.
            value /= 1.0 + exp(min(-value, 80.0));
        }
        out[index * size + i] = value;
    }
}
