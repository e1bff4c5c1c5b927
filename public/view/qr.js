// A QR code (ISO/IEC 18004) as an SVG: text in bytes, level M, versions 1 to 10, which is up to 213 bytes. Loaded when an
// invitation is shown.
//
//   qrCode(text)      an `<svg>`; throws if the text is too long
//   matrixOf(text)    the same as rows of booleans, dark ones true

const SVG = "http://www.w3.org/2000/svg";
/** Light modules around the code, without which readers do not find it. */
const QUIET = 4;
/** Of level M, by version: error correction bytes a block, and the number of data bytes of each block. */
const BLOCKS = [
  [10, [16]],
  [16, [28]],
  [26, [44]],
  [18, [32, 32]],
  [24, [43, 43]],
  [16, [27, 27, 27, 27]],
  [18, [31, 31, 31, 31]],
  [22, [38, 38, 39, 39]],
  [22, [36, 36, 36, 37, 37]],
  [26, [43, 43, 43, 43, 44]],
];
/** Where the centres of the small squares are, by version. */
const ALIGNMENT = [[], [6, 18], [6, 22], [6, 26], [6, 30], [6, 34], [6, 22, 38], [6, 24, 42], [6, 26, 46], [6, 28, 50]];
/** The mask patterns of the standard: which modules of the data are turned round. */
const MASKS = [
  (x, y) => (x + y) % 2 === 0,
  (x, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(y / 2) + Math.floor(x / 3)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

export function qrCode(text) {
  const rows = matrixOf(text);
  const size = rows.length + 2 * QUIET;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svg.setAttribute("shape-rendering", "crispEdges");
  const path = document.createElementNS(SVG, "path");
  const cells = rows.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")));
  path.setAttribute("d", cells.join(""));
  svg.append(path);
  return svg;
}

export function matrixOf(text) {
  const bytes = new TextEncoder().encode(text);
  const version = 1 + BLOCKS.findIndex((_, index) => bytes.length <= capacityOf(index + 1));
  if (version === 0) throw new RangeError("too long for a QR code");
  const bits = codewords(bytes, version).flatMap((byte) => bitsOf(byte, 8));
  const { cells, fixed } = frameOf(version);
  placeData(cells, fixed, bits);
  const masked = MASKS.map((mask, number) => {
    const copy = cells.map((row, y) => row.map((dark, x) => (fixed[y][x] ? dark : dark !== mask(x, y))));
    placeFormat(copy, number);
    return copy;
  });
  const penalties = masked.map(penaltyOf);
  return masked[penalties.indexOf(Math.min(...penalties))];
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const bitsOf = (value, count) => Array.from({ length: count }, (_, index) => (value >> (count - 1 - index)) & 1);
const countBits = (version) => (version < 10 ? 8 : 16);
const capacityOf = (version) => Math.floor((8 * sum(BLOCKS[version - 1][1]) - 4 - countBits(version)) / 8);

/** Data and error correction of all blocks, interleaved. */
function codewords(bytes, version) {
  const [correction, lengths] = BLOCKS[version - 1];
  const total = sum(lengths);
  const bits = [
    ...bitsOf(0b0100, 4),
    ...bitsOf(bytes.length, countBits(version)),
    ...[...bytes].flatMap((byte) => bitsOf(byte, 8)),
  ];
  // The terminator, then whole bytes, then filling.
  bits.push(...Array(Math.min(4, 8 * total - bits.length)).fill(0));
  bits.push(...Array((8 - (bits.length % 8)) % 8).fill(0));
  const data = Array.from({ length: bits.length / 8 }, (_, index) =>
    parseInt(bits.slice(8 * index, 8 * index + 8).join(""), 2),
  );
  for (let index = 0; data.length < total; index += 1) data.push(index % 2 === 0 ? 0xec : 0x11);
  let at = 0;
  const blocks = lengths.map((length) => data.slice(at, (at += length)));
  const corrections = blocks.map((block) => remainderOf(block, correction));
  return [...interleaved(blocks), ...interleaved(corrections)];
}

const interleaved = (blocks) =>
  Array.from({ length: Math.max(...blocks.map(({ length }) => length)) }, (_, index) =>
    blocks.filter((block) => index < block.length).map((block) => block[index]),
  ).flat();

// Reed-Solomon over GF(256), with the polynomial of the standard.

const EXP = [];
const LOG = [];
for (let power = 0, value = 1; power < 255; power += 1) {
  EXP[power] = value;
  LOG[value] = power;
  value = value & 0x80 ? (value << 1) ^ 0x11d : value << 1;
}
const times = (a, b) => (a === 0 || b === 0 ? 0 : EXP[(LOG[a] + LOG[b]) % 255]);

function generatorOf(degree) {
  let polynomial = [1];
  for (let power = 0; power < degree; power += 1) {
    const longer = [...polynomial, 0];
    polynomial.forEach((coefficient, index) => (longer[index + 1] ^= times(coefficient, EXP[power])));
    polynomial = longer;
  }
  return polynomial;
}

function remainderOf(block, degree) {
  const generator = generatorOf(degree);
  const rest = [...block, ...Array(degree).fill(0)];
  for (let index = 0; index < block.length; index += 1) {
    const factor = rest[index];
    generator.forEach((coefficient, offset) => (rest[index + offset] ^= times(coefficient, factor)));
  }
  return rest.slice(block.length);
}

// The matrix.

/** What is the same whatever the data, and where it is: data goes nowhere else. */
function frameOf(version) {
  const size = 17 + 4 * version;
  const cells = Array.from({ length: size }, () => Array(size).fill(false));
  const fixed = Array.from({ length: size }, () => Array(size).fill(false));
  const set = (x, y, dark) => {
    if (x < 0 || y < 0 || x >= size || y >= size) return;
    cells[y][x] = dark;
    fixed[y][x] = true;
  };
  for (let index = 0; index < size; index += 1) {
    set(index, 6, index % 2 === 0);
    set(6, index, index % 2 === 0);
  }
  const square = (x, y, radius, isDark) => {
    for (let dy = -radius; dy <= radius; dy += 1)
      for (let dx = -radius; dx <= radius; dx += 1) set(x + dx, y + dy, isDark(Math.max(Math.abs(dx), Math.abs(dy))));
  };
  for (const [x, y] of [
    [3, 3],
    [size - 4, 3],
    [3, size - 4],
  ])
    square(x, y, 4, (ring) => ring !== 2 && ring !== 4);
  const centres = ALIGNMENT[version - 1];
  for (const y of centres) {
    for (const x of centres) {
      const isCorner = (x === 6 && y === 6) || (x === 6 && y === size - 7) || (x === size - 7 && y === 6);
      if (!isCorner) square(x, y, 2, (ring) => ring !== 1);
    }
  }
  for (let index = 0; index < 9; index += 1) {
    if (index !== 6) {
      set(index, 8, false);
      set(8, index, false);
    }
    if (index < 8) {
      set(size - 1 - index, 8, false);
      set(8, size - 1 - index, index === 7);
    }
  }
  if (version >= 7) {
    const code = bitsOf((version << 12) | checkOf(version, 0x1f25, 12), 18).reverse();
    code.forEach((bit, index) => {
      const [near, far] = [Math.floor(index / 3), size - 11 + (index % 3)];
      set(near, far, bit === 1);
      set(far, near, bit === 1);
    });
  }
  return { cells, fixed };
}

/** The remainder of a BCH code. */
function checkOf(value, generator, degree) {
  let rest = value << degree;
  for (let bit = 31; bit >= degree; bit -= 1) if ((rest >>> bit) & 1) rest ^= generator << (bit - degree);
  return rest;
}

/** Two columns at a time from the right, up and down in turns. */
function placeData(cells, fixed, bits) {
  const size = cells.length;
  let at = 0;
  let up = true;
  for (let right = size - 1; right > 0; right -= 2) {
    if (right === 6) right -= 1;
    for (let step = 0; step < size; step += 1) {
      const y = up ? size - 1 - step : step;
      for (const x of [right, right - 1]) if (!fixed[y][x]) cells[y][x] = bits[at++] === 1;
    }
    up = !up;
  }
}

/** Level M is 00. */
function placeFormat(cells, mask) {
  const size = cells.length;
  const code = ((mask << 10) | checkOf(mask, 0x537, 10)) ^ 0x5412;
  for (let index = 0; index < 15; index += 1) {
    const dark = ((code >> index) & 1) === 1;
    // Once around the first corner, and once along the other two.
    if (index < 8) cells[index < 6 ? index : index + 1][8] = dark;
    else cells[8][index === 8 ? 7 : 14 - index] = dark;
    if (index < 8) cells[8][size - 1 - index] = dark;
    else cells[size - 15 + index][8] = dark;
  }
}

/** How hard it is to read: long runs, squares of one colour, what looks like a corner, too much of one colour. */
function penaltyOf(cells) {
  const size = cells.length;
  const columns = cells.map((_, x) => cells.map((row) => row[x]));
  let penalty = 0;
  for (const row of [...cells, ...columns]) {
    const text = row.map(Number).join("");
    for (const [run] of text.matchAll(/0{5,}|1{5,}/g)) penalty += run.length - 2;
    for (const look of ["10111010000", "00001011101"])
      for (let at = text.indexOf(look); at >= 0; at = text.indexOf(look, at + 1)) penalty += 40;
  }
  for (let y = 1; y < size; y += 1) {
    for (let x = 1; x < size; x += 1) {
      const dark = cells[y][x];
      if (dark === cells[y - 1][x] && dark === cells[y][x - 1] && dark === cells[y - 1][x - 1]) penalty += 3;
    }
  }
  const share = sum(cells.flat().map(Number)) / (size * size);
  return penalty + 10 * Math.floor(Math.abs(20 * share - 10));
}
