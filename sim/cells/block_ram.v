// A block RAM of two ports, as ECP5 and Gowin have it: behavioural, our own, for simulation only.
// Yosys ships the vendors' block RAMs as black boxes.
//
// It holds 2,048 units of UNIT bits: 8, or 9 with a parity bit. An address counts bits without
// parity, so a port of 1, 2 or 4 bits reaches a part of a unit, a wider one 1, 2 or 4 units, and
// then the lowest bits of the address are its write enables, one a unit. After Lattice
// FPGA-TN-02204 (ECP5 memory usage guide) and Gowin UG285 (BSRAM and SSRAM), as far as Yosys uses
// them.
//
// Bits that a port reads as the other one writes them are undefined there, and random here: a
// design that relies on them is seen to fail.

module block_ram #(
    parameter integer UNIT = 9,
    parameter integer WIDTH_A = 18,
    parameter integer WIDTH_B = 18,
    parameter integer MODE_A = 0,  // What it puts out as it writes. 0: nothing new, 1: new, 2: old
    parameter integer MODE_B = 0,
    parameter REGISTER_A = 0,  // A second register at the output
    parameter REGISTER_B = 0,
    parameter ASYNCHRONOUS = 0,  // Reset of the outputs
    parameter RESET_BLOCKS = 0,  // A port in reset writes nothing
    parameter [2048*UNIT-1:0] INIT = 0
) (
    input [1:0] clk,  // Bit 0 is port A's
    input [1:0] enable,
    input [1:0] write,
    input [1:0] reset,
    input [1:0] advance,  // Enable of the second register
    input [1:0][13:0] address,
    input [1:0][35:0] in,
    output [1:0][35:0] out
);
  /* verilator lint_off MULTIDRIVEN */
  reg [2048*UNIT-1:0] bits = INIT;
  /* verilator lint_on MULTIDRIVEN */

  // Where an access begins.
  function integer place(input integer width, input [13:0] at);
    if (width < UNIT) place = UNIT * at[13:3] + (at[2:0] & ~(width - 1));
    else place = UNIT * (at[13:3] & ~(width / UNIT - 1));
  endfunction

  // Bits that a write changes, from its first one on.
  function [63:0] reach(input integer width, input [13:0] at);
    if (width <= UNIT) reach = (64'd1 << width) - 1;
    else
      reach = {
        {UNIT{at[3] && width == 4 * UNIT}},
        {UNIT{at[2] && width == 4 * UNIT}},
        {UNIT{at[1]}},
        {UNIT{at[0]}}
      };
  endfunction

  generate
    for (genvar p = 0; p < 2; p = p + 1) begin : port
      localparam integer WIDTH = p ? WIDTH_B : WIDTH_A;
      localparam integer OTHER = p ? WIDTH_A : WIDTH_B;
      localparam integer MODE = p ? MODE_B : MODE_A;

      wire [13:0] at = address[p];
      wire [13:0] other_at = address[1-p];
      wire writes = enable[p] && write[p] && !(RESET_BLOCKS && reset[p]);
      wire other_writes = enable[1-p] && write[1-p] && !(RESET_BLOCKS && reset[1-p]);

      wire [WIDTH-1:0] old = bits[place(WIDTH, at)+:WIDTH];
      wire [63:0] own = reach(WIDTH, at);
      wire [WIDTH-1:0] changed = old & ~own[WIDTH-1:0] | in[p][WIDTH-1:0] & own[WIDTH-1:0];

      wire [63:0] others = other_writes ? reach(OTHER, other_at) : 64'd0;
      wire signed [31:0] away = place(OTHER, other_at) - place(WIDTH, at);
      wire [63:0] struck = away < 0 ? others >> -away : others << away;

      reg [WIDTH-1:0] first = 0;
      reg [WIDTH-1:0] second = 0;
      wire clear = ASYNCHRONOUS && reset[p];

      always @(posedge clk[p]) if (writes) bits[place(WIDTH, at)+:WIDTH] <= changed;

      always @(posedge clk[p], posedge clear) begin
        if (clear || reset[p]) first <= 0;
        else if (enable[p]) begin
          if (writes && MODE == 1) first <= changed;
          else if (!writes || MODE == 2)
            first <= old ^ (struck[WIDTH-1:0] & {$urandom, $urandom});
        end
      end

      always @(posedge clk[p], posedge clear) begin
        if (clear || reset[p]) second <= 0;
        else if (advance[p]) second <= first;
      end

      assign out[p] = (p ? REGISTER_B : REGISTER_A) ? second : first;
    end
  endgenerate
endmodule
