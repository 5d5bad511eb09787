-- core.comm, with one process and with two: what they print is compared.
local core = require "syz.core"
local support = dofile "tests/lua/support.lua"

local attempts = 0

-- Run a script as two ranks: what each printed. A port that somebody else uses is tried once more with another.
local function as_two(script)
  local folder = support.folder()
  support.write(folder, "rank.lua", 'local core = require "syz.core"\n' .. script)
  for _ = 1, 5 do
    attempts = attempts + 1
    local port = 20000 + (core.unix_time() * 1e6 + 7919 * attempts) % 10000
    os.execute(([[folder='%s'; for r in 0 1; do
      RANK=$r WORLD_SIZE=2 MASTER_PORT=%d SYZ_COMM_TIMEOUT=60 luajit "$folder/rank.lua" >"$folder/$r.txt" 2>&1 &
    done; wait]]):format(folder, port))
    local first, second = core.file.read(folder .. "/0.txt"), core.file.read(folder .. "/1.txt")
    if not (first .. second):find("already in use", 1, true) then return first, second end
  end
  error "no free port"
end

describe("a comm", function()
  after_each(support.clean)

  it("of one process keeps what it is given", function()
    local comm = core.comm()
    assert.equal("single", comm:kind())
    assert.same({ 0, 1 }, { comm:rank(), comm:size() })
    local t = core.tensor { 1, 2, 3 }
    assert.equal(t, comm:all_reduce(t, "mean"))
    assert.equal(t, comm:broadcast(t))
    assert.same({ 1, 2, 3 }, comm:all_gather(t):totable())
    assert.same({ 1, 2, 3 }, comm:reduce_scatter(t, "sum"):totable())
    comm:barrier()
    comm:close()
    assert.error_matches(function() comm:barrier() end, "the comm is closed")
  end)

  it("refuses what it does not understand", function()
    assert.error_matches(function() core.comm { sise = 2 } end, 'unknown field "sise": kind, rank, size')
    assert.error_matches(function() core.comm { size = 1.5 } end, "size must be a whole number")
    assert.error_matches(function() core.comm { size = 1, kind = 7 } end, "kind must be a string")
    assert.error_matches(function() core.comm { size = 1, timeout = "1" } end, "timeout must be a number")
    assert.error_matches(function() core.comm { size = 1, kind = "mpi" } end, 'unknown kind "mpi"')
    assert.error_matches(function() core.comm { size = 2, rank = 1 } end, "port is 0")
    local comm = core.comm { size = 1 }
    assert.error_matches(function() comm:all_reduce(core.zeros { 2 }, "max") end, "invalid option 'max'")
    assert.error_matches(function() comm:all_reduce(7) end, "tensor expected")
    assert.error_matches(function() comm:all_gather(core.tensor(3)) end, "at least one dimension")
    assert.error_matches(function() comm:broadcast(core.zeros { 2 }, 1) end, "no such rank")
    assert.error_matches(function() comm:all_reduce(core.zeros({ 2 }, "i64")) end, "the tensor is i64")
  end)

  it("of two processes adds, gathers, scatters and broadcasts", function()
    local first, second = as_two [[
      local comm = core.comm()
      local r = comm:rank()
      local function show(t) print(table.concat(t:shape(), "x") .. ": " .. table.concat(t:totable(), " ")) end
      show(comm:all_reduce(core.tensor { 1 + r, 10 }))
      show(comm:all_reduce(core.tensor({ 1 + r, 10 }, "bf16"), "mean"))
      show(comm:all_gather(core.tensor { { r, 1 }, { 2, 3 } }))
      show(comm:broadcast(core.tensor({ 5 + r }, "i64"), 1))
      print(comm:kind(), comm:size())
      print(comm:reduce_scatter(core.tensor { 1, 2, 3, 4 + r }):totable()[2])
    ]]
    local same = "2: 3 20\n2: 1.5 10\n4x2: 0 1 2 3 1 1 2 3\n1: 6\ntcp\t2\n"
    assert.equal(same .. "4\n", first)
    assert.equal(same .. "9\n", second)
  end)

  it("of two processes averages gradients, so that both take the same step", function()
    local first, second = as_two [[
      local comm = core.comm()
      local w = core.tensor({ 1, 2, 3 }):keep():requires_grad(true)
      local adamw = core.adamw({ w }, { lr = 0.1 })
      for step = 1, 3 do
        core.scope(function()
          local x = core.generator(step, comm:rank()):randn { 3 }
          local y = (w * x):sum()
          local loss = y * y
          loss:backward()
          comm:all_reduce_grads { w }
          adamw:step()
          adamw:zero_grad()
        end)
      end
      for i, value in ipairs(w:totable()) do io.write(("%.17g "):format(value)) end
    ]]
    assert.equal(first, second)
    assert.matches("^%-?%d", first)
  end)

  it("tells the others that one has ended", function()
    local first, second = as_two [[
      local comm = core.comm()
      comm:barrier()
      if comm:rank() == 1 then return end
      print(select(2, pcall(comm.all_reduce, comm, core.zeros { 4 })))
    ]]
    assert.equal("", second)
    assert.equal("all_reduce: rank 1 of 2 has ended: its messages tell why\n", first)
  end)
end)
