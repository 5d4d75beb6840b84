"""`prism runner`: a run put together step by step, as PRISM v6's `runner.py` did.

choices      what is decided, what is asked next, and what an answer may be: pure
projects     the folders of projects, and what stands in them
inspection   an input file looked at: its first rows, and what is wrong with it
prompts      the prompt files that can be taken, or one that is proposed
model_list   the models that can be taken, and why others cannot
draft        the job file that the choices make
outlook      what the run will take, foretold from a sample
deliveries   the four files of a run, in the places that PRISM v6 had for them
surroundings all of the above behind one object, so that the screen asks nobody else
wizard       from question to question: no screen, no waiting
pages        what each step asks: pure
texts        what is shown of it, in lines: pure
errands      what takes time, in threads: tables checked, servers asked, a sample asked
sheet        what is on the screen (look, widgets, boxes)
screen       the Textual application: keys to the wizard; imported only when it is drawn
command      the command itself
"""
