import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function SearchPage() {
  return (
    <Page title="Search">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
