/** The figures of a decoder's card: whatever it measured, with interval and n. Pure. */

export type Figure = {
  name: string;
  group: string;
  value: number;
  lower: number;
  upper: number;
  n: number;
};

const NULLS = /null|shuffled|empty_text|random|mean_vector|token_mean|other_reading/;

/** Return every figure of a card that has its interval and its n, in the card's order. */
export function figuresOf(card: unknown, group = ""): Figure[] {
  if (typeof card !== "object" || card === null || Array.isArray(card)) return [];
  return Object.entries(card).flatMap(([name, value]) => {
    const figure = figureOf(value);
    if (figure !== null) return [{ name, group, ...figure }];
    return figuresOf(value, group === "" ? name : `${group}, ${name}`);
  });
}

/** Tell whether a figure is of what no reading should be like: another vector's text, noise, or no text. */
export function isNull(figure: Figure): boolean {
  return NULLS.test(figure.name);
}

/** Return a figure's name as words. */
export function words(name: string): string {
  return name.replaceAll("_", " ").replace(/\bfve\b/g, "FVE");
}

function figureOf(value: unknown): Omit<Figure, "name" | "group"> | null {
  if (typeof value !== "object" || value === null || !("value" in value) || !("ci95" in value)) return null;
  const { value: estimate, ci95: interval, n } = value as Record<string, unknown>;
  if (typeof estimate !== "number" || typeof n !== "number" || !Array.isArray(interval)) return null;
  const [lower, upper] = interval as unknown[];
  return typeof lower === "number" && typeof upper === "number"
    ? { value: estimate, lower, upper, n }
    : null;
}
