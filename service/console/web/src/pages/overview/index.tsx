import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function OverviewPage() {
  return (
    <Page title="Overview">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
