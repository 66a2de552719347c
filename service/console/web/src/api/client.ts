/** The REST API, with types from docs/openapi.json, and its errors. */
import createClient from "openapi-fetch";
import { statedPurpose } from "@/app/purpose-store";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Problem = Schemas["Problem"];

/** Path below which the service answers, "" unless a proxy adds a prefix; the service writes the page's <base>. */
export const ROOT = new URL(document.baseURI).pathname.replace(/\/console\/?$/, "");

/** Path of the console itself, the base of its routes. */
export const CONSOLE = `${ROOT}/console`;

/** What the service refused or could not do. */
export class ApiError extends Error {
  /** HTTP status; 0 when there was no answer at all. */
  readonly status: number;
  /** Stable name of the problem. */
  readonly code: string;
  readonly problem: Problem | null;

  constructor(status: number, code: string, message: string, problem: Problem | null = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.problem = problem;
  }
}

export const api = createClient<paths>({ baseUrl: ROOT, credentials: "same-origin" });

api.use({
  onRequest({ request }) {
    const purpose = statedPurpose();
    if (purpose !== null && !request.headers.has("Subtext-Purpose")) {
      request.headers.set("Subtext-Purpose", purpose);
    }
    return request;
  },
});

type Answer<T> = { data?: T; error?: unknown; response: Response };

/** Return what an operation answered; raise ApiError for everything else. */
export async function take<T>(asked: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await asked;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "no_answer", "The service did not answer: is it running, and is the network up?");
  }
  if (answer.response.ok && answer.data !== undefined) return answer.data;
  throw errorOf(answer.response.status, answer.error);
}

function errorOf(status: number, body: unknown): ApiError {
  if (typeof body === "object" && body !== null && "code" in body && "detail" in body) {
    const problem = body as Problem;
    const fields = (problem.errors ?? []).map((wrong) => `${wrong.field}: ${wrong.message}`);
    const untold = fields.filter((field) => !problem.detail.includes(field));
    return new ApiError(status, problem.code, [problem.detail, ...untold].join(" "), problem);
  }
  return new ApiError(status, "unknown", `The service answered ${status} and said nothing more.`);
}
