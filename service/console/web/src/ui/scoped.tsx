import { Absent } from "@/ui/states";

/** What the caller may not see: told as absent, with the scope that it needs. */
export function NeedsScope({ what, scope }: { what: string; scope: string }) {
  return (
    <Absent
      what={what}
      why={
        <>
          Your key or group lacks the scope <code>{scope}</code>.
        </>
      }
    />
  );
}
