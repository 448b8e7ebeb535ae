// The Diffusion Transformer of chapter 16 and three samplers of chapter 12, in plain JavaScript.
//
// It runs in a worker, so that the page stays smooth; live.js makes the worker, and tools/pack_weights.py brings the
// weights. Numbers in brackets are the book's equations. Letters are the chapter's: B labels, T tokens, D width,
// H heads, E = D / H numbers a head. Arrays are flat; comments at the right say their shapes.

const STEPS = 1000;  // of the process that the network was trained on
let config, net;     // net["blocks.0.mlp.fc1"] = {weight, bias}

// ---------------------------------------------------------------------------------------------- the network

// x Wᵀ + b for each row of x, for two rows and four outputs at once: what is read from memory serves several times.
function linear(x, { weight: w, bias }) {                                                   // (rows, K) → (rows, N)
  const N = bias.length, K = w.length / N, rows = x.length / K, y = new Float32Array(rows * N);
  for (let r = 0; r < rows; r += 2) {
    const s = Math.min(r + 1, rows - 1), a = r * K, b = s * K;
    for (let n = 0; n < N; n += 4) {
      const w0 = n * K, w1 = w0 + K, w2 = w1 + K, w3 = w2 + K;
      let a0 = bias[n], a1 = bias[n + 1], a2 = bias[n + 2], a3 = bias[n + 3], b0 = a0, b1 = a1, b2 = a2, b3 = a3;
      for (let k = 0; k < K; k++) {
        const p = x[a + k], q = x[b + k], c0 = w[w0 + k], c1 = w[w1 + k], c2 = w[w2 + k], c3 = w[w3 + k];
        a0 += p * c0; a1 += p * c1; a2 += p * c2; a3 += p * c3;
        b0 += q * c0; b1 += q * c1; b2 += q * c2; b3 += q * c3;
      }
      const i = r * N + n, j = s * N + n;
      y[i] = a0; y[i + 1] = a1; y[i + 2] = a2; y[i + 3] = a3;
      y[j] = b0; y[j + 1] = b1; y[j + 2] = b2; y[j + 3] = b3;
    }
  }
  return y;
}

const silu = (x) => x.map((u) => u / (1 + Math.exp(-u)));
const gelu = (x) => x.map((u) => u / (1 + Math.exp(-1.5957691216057308 * (u + 0.044715 * u * u * u))));  // "tanh"

// The pixel at place (row, column) of token i, row by row inside a token: (16.1) as a table of T · p² places.
function places({ size, patch }) {
  const side = size / patch, table = [];
  for (let i = 0; i < side * side; i++)
    for (let k = 0; k < patch * patch; k++)
      table.push((Math.floor(i / side) * patch + Math.floor(k / patch)) * size + (i % side) * patch + (k % patch));
  return table;
}

// Waves of d numbers with the frequencies 10000^(−2k/d).
function waves(u, d, first, second) {
  const angles = Array.from({ length: d / 2 }, (_, k) => u * 10000 ** ((-2 * k) / d));
  return [...angles.map(first), ...angles.map(second)];
}

function positions({ size, patch, width: D }) {                                                           // (T, D)
  const side = size / patch, wave = (u) => waves(u, D / 2, Math.sin, Math.cos);
  const table = Array.from({ length: side * side }, (_, i) => [...wave(i % side), ...wave(Math.floor(i / side))]);
  return Float32Array.from(table.flat());                                                                 // (16.3)
}

// LayerNorm of each token, then two of the dials (B, n·D) that the condition has set for its image: shift and scale.
function modulate(z, dials, B, shift, scale) {                                                // (B·T, D) → (B·T, D)
  const D = config.width, T = z.length / D / B, out = new Float32Array(z.length);
  for (let row = 0; row < B * T; row++) {
    const at = row * D, dial = Math.floor(row / T) * (dials.length / B);
    let mean = 0, square = 0;
    for (let d = 0; d < D; d++) mean += z[at + d] / D;
    for (let d = 0; d < D; d++) square += (z[at + d] - mean) ** 2 / D;
    for (let d = 0; d < D; d++) {
      const normal = (z[at + d] - mean) / Math.sqrt(square + 1e-6);
      out[at + d] = normal * (1 + dials[dial + scale * D + d]) + dials[dial + shift * D + d];             // (16.6)
    }
  }
  return out;
}

function attention(x, name, B) {                                                              // (B·T, D) → (B·T, D)
  const { width: D, heads: H } = config, E = D / H, T = x.length / D / B;
  const qkv = linear(x, net[`${name}.qkv`]), mixed = new Float32Array(x.length), p = new Float64Array(T);
  for (let b = 0; b < B; b++) for (let h = 0; h < H; h++) for (let i = 0; i < T; i++) {
    const q = (b * T + i) * 3 * D + h * E, out = (b * T + i) * D + h * E;
    let sum = 0;
    for (let j = 0; j < T; j++) {
      const k = (b * T + j) * 3 * D + D + h * E;
      let score = 0;
      for (let e = 0; e < E; e++) score += qkv[q + e] * qkv[k + e];
      sum += p[j] = Math.exp(score / Math.sqrt(E));
    }
    for (let j = 0; j < T; j++) {
      const v = (b * T + j) * 3 * D + 2 * D + h * E, share = p[j] / sum;
      for (let e = 0; e < E; e++) mixed[out + e] += share * qkv[v + e];                                   // (16.4)
    }
  }
  return linear(mixed, net[`${name}.proj`]);
}

// z + α ⊙ f, with the gate α of each image.
function gated(z, dials, B, gate, f) {                                                        // (B·T, D) → (B·T, D)
  const D = config.width, perImage = z.length / B, dialsPerImage = dials.length / B;
  return z.map((value, at) => value + dials[Math.floor(at / perImage) * dialsPerImage + gate * D + (at % D)] * f[at]);
}

// What the network says of one noisy image x at step t under each of the B labels (the last label is "no class").
function predict(x, t, labels) {                                                           // (I·I) → (B, I·I)
  const B = labels.length, D = config.width, place = net.places;
  let z = linear(Float32Array.from(place, (at) => x[at]), net.patch_embed);                                // (T, D)
  z = z.map((value, at) => value + net.positions[at]);                                                    // (16.2)
  const T = z.length / D, tokens = new Float32Array(B * T * D), c = new Float32Array(B * D);
  const time = linear(Float32Array.from(waves(t, 256, Math.cos, Math.sin)), net["time_embed.mlp.0"]);     // (16.5)
  const step = linear(silu(time), net["time_embed.mlp.2"]);                                                   // (D)
  labels.forEach((y, b) => {
    tokens.set(z, b * T * D);
    for (let d = 0; d < D; d++) c[b * D + d] = step[d] + net["label_embed.table"].weight[y * D + d];
  });
  const condition = silu(c);
  z = tokens;
  for (let l = 0; l < config.depth; l++) {
    const block = `blocks.${l}`, dials = linear(condition, net[`${block}.modulation`]);                   // (16.7)
    const attended = attention(modulate(z, dials, B, 0, 1), `${block}.attn`, B);
    z = gated(z, dials, B, 2, attended);                                                                  // (16.8)
    const hidden = gelu(linear(modulate(z, dials, B, 3, 4), net[`${block}.mlp.fc1`]));
    z = gated(z, dials, B, 5, linear(hidden, net[`${block}.mlp.fc2`]));                                   // (16.9)
  }
  const last = linear(condition, net["final.modulation"]);
  const pixels = linear(modulate(z, last, B, 0, 1), net["final.linear"]), out = new Float32Array(pixels.length);
  pixels.forEach((value, k) => { out[Math.floor(k / place.length) * place.length + place[k % place.length]] = value; });
  return out;                                                                                            // (16.10)
}

// -------------------------------------------------------------------------------------------- the process

// ᾱ of the cosine schedule at each step.
const alphaBar = (() => {
  const f = (t) => Math.cos(((t / STEPS + 0.008) / 1.008) * (Math.PI / 2)) ** 2, table = [];
  for (let t = 0; t < STEPS; t++) table.push((table[t - 1] ?? 1) * Math.max(f(t + 1) / f(t), 0.001));     // (10.2)
  return table;
})();
const scales = (t) => (t < 0 ? [1, 0] : [Math.sqrt(alphaBar[t]), Math.sqrt(1 - alphaBar[t])]);  // a, b

// The clean image and the noise that a guided velocity v stands for, the image clipped to [−1, 1].
function denoise(x, t, digit, guidance) {
  const [a, b] = scales(t), none = config.num_classes, n = x.length;
  const both = guidance === 1 || digit === none ? predict(x, t, [digit]) : predict(x, t, [digit, none]);
  const v = both.length === n ? both
    : x.map((_, k) => both[n + k] + guidance * (both[k] - both[n + k]));                                 // (16.13)
  const start = x.map((value, k) => Math.min(1, Math.max(-1, a * value - b * v[k])));                  // by (10.13)
  return { v, start, eps: x.map((value, k) => (value - a * start[k]) / b) };                           // by (10.10)
}

// One step of each sampler from level i to the next lower one: {x, a, b, a2, b2, start, eps, past, noise} → x.
const ddim = (eta) => ({ x, a, b, a2, b2, start, eps, noise }) => {
  const fresh = (eta * b2 / b) * Math.sqrt(Math.max(0, b * b - (a * b2 / a2) ** 2));
  const kept = Math.sqrt(Math.max(0, b2 * b2 - fresh * fresh)), z = fresh > 0 ? noise(x.length) : x;
  return x.map((_, k) => a2 * start[k] + kept * eps[k] + fresh * z[k]);                        // (12.4) for η = 0
};
const SAMPLERS = {
  ddim: ddim(0),
  ddpm: ddim(1),  // draws as much noise as the posterior has: (10.6) and (10.7)
  dpm({ x, a, b, a2, b2, start, past }) {
    const h = Math.log(a2 / b2) - Math.log(a / b);
    const lead = past && b2 > 0 ? h / (2 * (Math.log(a / b) - past.logSnr)) : 0, before = past?.start ?? start;
    return x.map((value, k) =>
      (b2 / b) * value - a2 * Math.expm1(-h) * (start[k] + lead * (start[k] - before[k])));               // (12.8)
  },
};

// Steps spread evenly over 0 … 999; halves are rounded to even, as in Python.
function respaced(count) {
  return Array.from({ length: count }, (_, k) => {
    const exact = (k * (STEPS - 1)) / (count - 1), near = Math.round(exact);
    return near - exact === 0.5 && near % 2 ? near - 1 : near;
  });
}

function* sample({ digit, guidance, steps, sampler, seed, start: given }) {
  const noise = normals(seed), times = respaced(steps);
  let x = given ?? noise(config.size ** 2), past;
  yield { x, start: x, left: steps };
  for (let i = steps - 1; i >= 0; i--) {
    const [a, b] = scales(times[i]), [a2, b2] = scales(times[i - 1] ?? -1);
    const { start, eps } = denoise(x, times[i], digit, guidance);
    x = SAMPLERS[sampler]({ x, a, b, a2, b2, start, eps, past, noise });
    past = { start, logSnr: Math.log(a / b) };
    yield { x, start, left: i };
  }
}

// PyTorch's numbers on a CPU, so that a seed means the same digit here as in Python: the Mersenne Twister, uniform
// numbers of 24 bits, and Box and Muller's transform in blocks of sixteen.
function normals(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let next = 624;
  function uniform() {
    if (next === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return ((y ^ (y >>> 18)) & 0xffffff) / 0x1000000;
  }
  return (count) => {                                                            // count, a multiple of 16 → (count)
    const u = Float32Array.from({ length: count }, uniform), z = new Float32Array(count);
    for (let k = 0; k < count; k++) {
      const j = k % 16 < 8 ? k : k - 8, radius = Math.sqrt(-2 * Math.log(1 - u[j])), angle = 2 * Math.PI * u[j + 8];
      z[k] = radius * (j === k ? Math.cos(angle) : Math.sin(angle));
    }
    return z;
  };
}

// ------------------------------------------------------------------------------------------------ messages

// The tensors, which stand one after another as numbers of 16 bits.
function unpack({ config: about, tensors, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)), half = new Uint16Array(bytes.buffer);
  const value = (h) => {
    const exponent = (h >> 10) & 31, fraction = h & 1023;
    return (h >> 15 ? -1 : 1) * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
  };
  config = about;
  net = { places: places(config), positions: positions(config) };
  let at = 0;
  for (const [name, count] of tensors) {
    const [, layer, kind] = name.match(/(.*)\.(\w+)/);
    (net[layer] ??= {})[kind] = Float32Array.from(half.subarray(at, (at += count)), value);
  }
  return { ready: true };
}

// A drawn digit at step t of the forward process, and what the network makes of it in one call.
function guess({ clean, t, digit, seed }) {
  const [a, b] = scales(t), eps = normals(seed)(clean.length);
  const x = clean.map((value, k) => a * value + b * eps[k]);                                              // (10.4)
  return { x, ...denoise(x, t, digit, 1), alphaBar: alphaBar[t] };
}

// Each message asks one thing and is answered on the port that came with it.
let run;
const begin = (settings) => (run = sample(settings)).next().value, next = () => run.next().value;
const ANSWERS = { unpack, guess, begin, next };
self.onmessage = ({ data: [what, value], ports: [port] }) => port.postMessage(ANSWERS[what](value));
