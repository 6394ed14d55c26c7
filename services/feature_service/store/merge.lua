-- Merges tallies into rings (services/feature_service/domain/rings.py says how a ring's bytes lie).
-- KEYS: rings. ARGV[1]: slots of each ring; ARGV[2]: milliseconds until a ring that is left alone expires;
-- ARGV[i + 2]: the packed tallies for KEYS[i], each a head (partition, offset mark, number of cells) and its cells.
-- Returns the number of events that came too late: their slot holds a newer tile.
local slots = tonumber(ARGV[1])
local late = 0
for i, key in ipairs(KEYS) do
  local packed = ARGV[i + 2]
  local at = 1
  while at <= #packed do
    local partition, mark, cells
    partition, mark, cells, at = struct.unpack('<ddd', packed, at)
    local place = slots * 64 + partition * 8
    local stored = redis.call('GETRANGE', key, place, place + 7)
    if #stored == 8 and struct.unpack('<d', stored) >= mark then
      at = at + cells * 64
    else
      for _ = 1, cells do
        local tile, count, total, spread, low, high, last_time, last
        tile, count, total, spread, low, high, last_time, last = struct.unpack('<dddddddd', packed, at)
        local cell = string.sub(packed, at, at + 63)
        at = at + 64
        local slot = (tile % slots) * 64
        local held = redis.call('GETRANGE', key, slot, slot + 63)
        local h_tile, h_count, h_total, h_spread, h_low, h_high, h_time, h_last = 0, 0, 0, 0, 0, 0, 0, 0
        if #held == 64 then
          h_tile, h_count, h_total, h_spread, h_low, h_high, h_time, h_last = struct.unpack('<dddddddd', held)
        end
        if h_count == 0 or h_tile < tile then
          redis.call('SETRANGE', key, slot, cell)
        elseif h_tile == tile then
          local apart = total / count - h_total / h_count
          spread = h_spread + spread + apart * apart * h_count * count / (h_count + count)
          if h_time > last_time or (h_time == last_time and h_last > last) then
            last_time, last = h_time, h_last
          end
          redis.call('SETRANGE', key, slot, struct.pack('<dddddddd', tile, h_count + count, h_total + total, spread,
            math.min(h_low, low), math.max(h_high, high), last_time, last))
        else
          late = late + count
        end
      end
      redis.call('SETRANGE', key, place, struct.pack('<d', mark))
    end
  end
  redis.call('PEXPIRE', key, ARGV[2])
end
return late
