// Scores of the zoo's models: what a source claims and what was measured are lists of their own, and never one figure.

/** What a dataset's evaluation is summed up in; a score has one of them. */
const MAIN_METRICS = ["AP", "Mean", "PCK/Mean", "Mean_acc", "Total"];
const WHOLE = { percent: 100, fraction: 1 };

/** The scores of a kind: the list of a whole entry, or the one, its best, of a row of the list of models. */
export function scoresOf(model, kind) {
  const value = model[kind];
  if (!value) return [];
  if (Array.isArray(value)) return value;
  const { metric, percent, ...how } = value;
  return [{ ...how, unit: "percent", metrics: { [metric]: percent } }];
}

/** An accuracy in percent, or null where this score does not have it. */
const percent = (score, metric) => (metric in score.metrics && score.unit in WHOLE ? (100 * score.metrics[metric]) / WHOLE[score.unit] : null);

const isInt8Score = (score) => /quantised to int8/i.test(score.protocol ?? "");

/** The accuracies of a model: {kind, dataset, metric, value, flip, protocol, int8}. */
export function accuracies(model) {
  return ["claimed", "measured"].flatMap((kind) =>
    scoresOf(model, kind).flatMap((score) => {
      const metric = MAIN_METRICS.find((name) => percent(score, name) !== null);
      if (!metric) return [];
      const { dataset, flip = null, protocol = "" } = score;
      return [{ kind, dataset, metric, value: percent(score, metric), flip, protocol, int8: isInt8Score(score) }];
    }),
  );
}

/** The best of a kind, on the dataset that the model was trained on if there is one, or null. */
export function best(model, kind) {
  const all = accuracies(model).filter((score) => score.kind === kind);
  const own = all.filter((score) => score.dataset === model.dataset);
  return (own.length ? own : all).reduce((a, b) => (a && a.value >= b.value ? a : b), null);
}

/** One line of numbers as printed by their source. */
export function numbers(score) {
  const digits = { fraction: 3, percent: 1 }[score.unit];
  return Object.entries(score.metrics)
    .map(([name, value]) => `${name} ${digits === undefined ? `${value} ${score.unit}` : value.toFixed(digits)}`)
    .join("  ");
}

/**
 * What a model can be placed at: {key, group, label, value, higher, int8, flip}; points of one key share an axis.
 *
 * Its `speeds` are {kind, metric, value, unit, protocol, flip}: those of one machine and setting have one protocol, and
 * are never on one axis with those of another.
 */
export function costs(model) {
  const found = (model.speeds ?? []).map(({ kind, metric, value, unit, protocol, flip = null }) => ({
    key: [kind, metric, unit, protocol].join(" "),
    group: kind === "measured" ? "Measured" : "Claimed",
    label: `${unit}, ${protocol}`,
    value,
    higher: metric !== "latency",
    int8: /^int8\b|\bint8, batch/i.test(protocol), // as its source, or a benchmark here, says it
    flip,
  }));
  const counted = { gflops: "GFLOPs a person, counted", params_m: "parameters in millions, counted" };
  for (const [key, label] of Object.entries(counted)) {
    if (Number.isFinite(model[key])) found.push({ key, group: "Counted", label, value: model[key], higher: false, int8: null, flip: null });
  }
  return found.filter(({ value }) => value > 0);
}

/** Whether an accuracy is that of the network as it was timed: a speed in INT8 is never beside one of floating point. */
export function belongs(score, cost) {
  if (cost.int8 === null) return !score.int8;
  return score.int8 === cost.int8 && (cost.flip === null || Boolean(score.flip) === cost.flip);
}
