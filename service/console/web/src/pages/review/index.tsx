import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function ReviewPage() {
  return (
    <Page title="Review">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
