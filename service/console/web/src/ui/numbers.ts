/** Numbers as they are shown. Pure. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function whole(value: number): string {
  return WHOLE.format(value);
}

/** Return a share in per cent, with as many digits as small shares need. */
export function percent(share: number): string {
  const value = share * 100;
  if (value === 0 || value >= 10) return `${value.toFixed(value === 0 || value === 100 ? 0 : 1)}%`;
  if (value >= 1) return `${value.toFixed(1)}%`;
  return value >= 0.01 ? `${value.toFixed(2)}%` : "< 0.01%";
}

/** Return a number with two digits after the point, and a true minus sign. */
export function decimal(value: number, digits = 2): string {
  return value.toFixed(digits).replace("-", "−");
}

/** Return a p-value: 0.0004 and 0.03 keep their digits. */
export function pValue(value: number): string {
  return value >= 0.01 ? value.toFixed(3) : value.toPrecision(2);
}
