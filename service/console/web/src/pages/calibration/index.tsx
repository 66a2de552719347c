import { Page } from "@/ui/page";
import { Absent } from "@/ui/states";

export default function CalibrationPage() {
  return (
    <Page title="Calibration">
      <Absent what="This page" why="It is not part of this build." />
    </Page>
  );
}
