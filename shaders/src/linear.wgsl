@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
{{ BIAS_BINDING }}
@group(0) @binding({{ SIZES_AT }}) var<uniform> sizes: Sizes;

struct Sizes {
    rows: u32,
    inputs: u32,
    outputs: u32,
    fold_width: u32,
}

// One workgroup computes 64 columns of 64 rows of the result, an invocation 4 x 4 of these: x [rows, inputs] times
// weight [inputs, outputs], both through workgroup memory, 16 inputs at a time. Each such slice is summed
// in order, then added to the sum: long sums lose less this way.

var<workgroup> x_slice: array<vec4<f32>, 272>; // [16 inputs][16 x 4 rows + 1 against bank conflicts]
var<workgroup> weight_slice: array<vec4<f32>, 256>; // [16 inputs][16 x 4 columns]

fn bias_at(column: u32) -> f32 {
    return {{ BIAS }};
}

fn x_at(row: u32, input: u32) -> f32 {
    if (row < sizes.rows && input < sizes.inputs) {
        return x[row * sizes.inputs + input];
    }
    return 0.0;
}

fn weight_at(input: u32, column: u32) -> f32 {
    if (input < sizes.inputs && column < sizes.outputs) {
        return weight[input * sizes.outputs + column];
    }
    return 0.0;
}

fn write(row: u32, column: u32, sums: vec4<f32>) {
    if (row < sizes.rows) {
        let at = row * sizes.outputs + column;
        if (column < sizes.outputs) {
            out[at] = sums.x + bias_at(column);
        }
        if (column + 1u < sizes.outputs) {
            out[at + 1u] = sums.y + bias_at(column + 1u);
        }
        if (column + 2u < sizes.outputs) {
            out[at + 2u] = sums.z + bias_at(column + 2u);
        }
        if (column + 3u < sizes.outputs) {
            out[at + 3u] = sums.w + bias_at(column + 3u);
        }
    }
}

@compute @workgroup_size(16, 16, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = (group.z * sizes.fold_width + group.x) * 64u + local.y * 4u;
    let column = group.y * 64u + local.x * 4u;

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var first_input = 0u; first_input < sizes.inputs; first_input += 16u) {
        let across = first_input + local.x;
        x_slice[local.x * 17u + local.y] =
            vec4<f32>(x_at(row, across), x_at(row + 1u, across), x_at(row + 2u, across), x_at(row + 3u, across));
        let down = first_input + local.y;
        weight_slice[local.y * 16u + local.x] = vec4<f32>(
            weight_at(down, column),
            weight_at(down, column + 1u),
            weight_at(down, column + 2u),
            weight_at(down, column + 3u),
        );
        workgroupBarrier();
        var part0 = vec4<f32>();
        var part1 = vec4<f32>();
        var part2 = vec4<f32>();
        var part3 = vec4<f32>();
        for (var k = 0u; k < 16u; k++) {
            let values = x_slice[k * 17u + local.y];
            let factors = weight_slice[k * 16u + local.x];
            part0 = fma(vec4<f32>(values.x), factors, part0);
            part1 = fma(vec4<f32>(values.y), factors, part1);
            part2 = fma(vec4<f32>(values.z), factors, part2);
            part3 = fma(vec4<f32>(values.w), factors, part3);
        }
        sum0 += part0;
        sum1 += part1;
        sum2 += part2;
        sum3 += part3;
        workgroupBarrier();
    }

    write(row, column, sum0);
    write(row + 1u, column, sum1);
    write(row + 2u, column, sum2);
    write(row + 3u, column, sum3);
}
