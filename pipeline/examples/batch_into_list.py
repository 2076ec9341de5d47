"""Single records in; batches of at most ten, or of what came within 100 ms, into a list."""

import time

from pipeline import INFO, Batch, Engine, PipelineSettings, PipelineSpec, Record, RecordIds, Sink

batches: list[list[str]] = []


class ListSink(Sink):
    def write(self, batch: Batch) -> None:
        batches.append([record.message for record in batch.records])


settings = PipelineSettings(max_records=10, max_wait_s=0.1)
engine = Engine(log_id="example", ids=RecordIds(node=0))
engine.configure([PipelineSpec(key="1", name="list", sink_factory=ListSink, settings=settings)])
engine.start()
for number in range(25):
    record = Record(time.time_ns() // 1000, INFO, "example", f"hello {number}", "", "", b"{}")
    engine.offer(type="log", tenant="me", records=[record])
engine.stop(timeout_s=5.0)
print([len(batch) for batch in batches])
