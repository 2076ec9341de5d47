-- Bodies for wrk_logs.sh: numbered log records, and a count of the answers by status.
-- wrk runs one Lua state a thread; the counts are joined in done().

local batch = tonumber(os.getenv("BATCH") or "1")
local key = os.getenv("COLLECTOR_API_KEY")
local threads = {}
local next_thread = 0

function setup(thread)
   thread:set("id", next_thread)
   next_thread = next_thread + 1
   table.insert(threads, thread)
end

function init(args)
   sent, s202, s429, s503, other = 0, 0, 0, 0, 0
   wrk.method = "POST"
   wrk.headers["Content-Type"] = batch == 1 and "application/json" or "application/x-ndjson"
   if key and key ~= "" then
      wrk.headers["Authorization"] = "Bearer " .. key
   end
end

function request()
   local lines = {}
   for i = 1, batch do
      sent = sent + 1
      lines[i] = string.format(
         '{"level":"INFO","service":"wrk","message":"GET /api/cart answered in %d ms","thread":%d,"seq":%d}',
         sent % 487, id, sent)
   end
   return wrk.format(nil, nil, nil, table.concat(lines, "\n"))
end

function response(status, headers, body)
   if status == 202 then s202 = s202 + 1
   elseif status == 429 then s429 = s429 + 1
   elseif status == 503 then s503 = s503 + 1
   else other = other + 1 end
end

function done(summary, latency, requests)
   local accepted, refused, draining, others = 0, 0, 0, 0
   for _, thread in ipairs(threads) do
      accepted = accepted + thread:get("s202")
      refused = refused + thread:get("s429")
      draining = draining + thread:get("s503")
      others = others + thread:get("other")
   end
   local seconds = summary.duration / 1e6
   io.write(string.format("  202: %d  429: %d  503: %d  other: %d\n", accepted, refused, draining, others))
   io.write(string.format("  accepted: %.0f requests/s, %.0f records/s\n",
      accepted / seconds, accepted * batch / seconds))
end
