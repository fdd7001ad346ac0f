// Numbers on a slider: the round places of its track, and how they are written.

const FINE = [...steps(1, 2, 0.05), ...steps(2, 5, 0.1), ...steps(5, 10, 0.2)];
const COARSE = [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9];

function steps(low, high, step) {
  const count = Math.round((high - low) / step);
  return Array.from({ length: count }, (_, i) => tidy(low + i * step));
}

function tidy(number) {
  return Number(number.toPrecision(12));
}

function ladder(low, high, { log, integer, step }) {
  // every place of the track is a different round number, so each arrow key changes the value
  let rungs;
  if (log) {
    const decades = Math.log10(high / low);
    const mantissas = decades > 3 ? COARSE : FINE;
    rungs = [];
    for (let p = Math.floor(Math.log10(low)) - 1; p <= Math.ceil(Math.log10(high)); p += 1) {
      for (const m of mantissas) rungs.push(Number(`${m}e${p}`));
    }
  } else {
    const by = step || (integer ? 1 : round((high - low) / 100));
    const first = Math.ceil(low / by - 1e-9);
    const count = Math.floor(high / by + 1e-9) - first + 1;
    rungs = Array.from({ length: Math.max(count, 0) }, (_, i) => tidy((first + i) * by));
  }
  if (integer) rungs = rungs.map(Math.round);
  rungs = [low, ...rungs.filter((r) => r > low && r < high), high];
  return rungs.filter((r, i) => i === 0 || r !== rungs[i - 1]);
}

function round(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  const mantissa = size / power;
  return tidy(power * (mantissa < 1.5 ? 1 : mantissa < 3.5 ? 2 : mantissa < 7.5 ? 5 : 10));
}

function text(number) {
  if (Number.isInteger(number) && Math.abs(number) < 1e7) return String(number);
  const size = Math.abs(number);
  if (size < 1e-3 || size >= 1e7) return number.toExponential().replace("e+", "e");
  return String(tidy(number));
}

function nearest(rungs, value) {
  let best = 0;
  for (let i = 1; i < rungs.length; i += 1) {
    if (Math.abs(rungs[i] - value) < Math.abs(rungs[best] - value)) best = i;
  }
  return best;
}
