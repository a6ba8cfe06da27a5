// What the server found in one picture, in the form that the page works with, and the file that it is saved as.

/**
 * One result of an answer of /v1/predict.
 *
 * Returns {name, width, height, skeleton, joints, milliseconds, people}; a person is
 * {index, score, box: [x1, y1, x2, y2], boxScore, points: [[x, y, score], ...]} in pixels of the picture,
 * (0, 0) the centre of the top left one.
 */
export function readResult(answer, name) {
  const result = answer.results[0];
  const [width, height] = result.size_wh ?? [result.width, result.height];
  return {
    name,
    width,
    height,
    model: answer.model ?? result.model,
    skeleton: result.skeleton ?? answer.skeleton,
    joints: result.joints ?? answer.joints,
    milliseconds: total(answer.timing_ms ?? result.timing_ms),
    people: (result.people ?? []).map((person, index) => ({
      index,
      score: person.score,
      box: person.box ?? person.box_xyxy,
      boxScore: person.box_score,
      points: person.keypoints,
    })),
  };
}

/** The error of a picture that the server took and could not read, or null. */
export function errorOf(answer) {
  const error = answer.results?.[0]?.error ?? null;
  return error === null ? null : (error.message ?? String(error));
}

function total(timing) {
  if (!timing) return null;
  if (Number.isFinite(timing.total)) return timing.total;
  const parts = Object.values(timing).filter(Number.isFinite);
  return parts.length ? parts.reduce((sum, part) => sum + part, 0) : null;
}

/** The text of posezoo's own format, which `posezoo convert-results` reads. */
export function toFile(result, people) {
  const head = {
    format: "posezoo/1",
    image: result.name,
    width: result.width,
    height: result.height,
    skeleton: result.skeleton,
    joints: result.joints,
  };
  const lines = Object.entries(head).map(([key, value]) => ` ${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  const rows = people.map(
    (person) =>
      "\n  " +
      JSON.stringify({ box: person.box, box_score: person.boxScore, score: person.score, keypoints: person.points }),
  );
  return `{\n${[...lines, ` "people": [${rows}]`].join(",\n")}\n}\n`;
}

/** A picture's name without its ending, for the files that are made of it. */
export const stem = (name) => name.replace(/\.[^.]*$/, "") || "picture";
